"""Attention over packed rows by FlashAttention 4, as an operator that torch.compile leaves whole.

PyTorch brings FlashAttention 2, which does not know what Hopper's and Blackwell's tensor cores do by themselves. The
package flash-attn-4 does; it compiles its kernels on the machine, once for all lengths. It is used on a card after it
has agreed there with PyTorch's usual attention. What is called of it is not public, so another version may not agree.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import torch

from toolkit.cache import cache_root
from toolkit.hardware import FLASH4
from toolkit.kernels.row_attention import agrees, give_gradients


@torch.library.custom_op("toolkit::flash4_rows", mutates_args=())
def flash4_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within rows of q [tokens, heads, size], k and v [tokens, heads or a divisor of them, size].

    `edges` int32 [rows + 1], from 0 to tokens, may repeat; no row has more than `longest` tokens. Returns what q has
    the shape of, and logarithms [heads, tokens] for backward.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    _, logs, *_ = _kernels()._flash_attn_fwd(
        q, k, v, softmax_scale=scale, causal=True, return_lse=True, out=out, **_rows(edges, longest, q)
    )
    return out, logs.contiguous()


@torch.library.custom_op("toolkit::flash4_rows_backward", mutates_args=())
def flash4_rows_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logs: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, given that of what `flash4_rows` gave."""
    made = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in (q, k, v)]
    _kernels()._flash_attn_bwd(
        q, k, v, out, gradient.contiguous(), logs, scale, True,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        dq=made[0], dk=made[1], dv=made[2], **_rows(edges, longest, q),
    )  # fmt: skip
    return made[0], made[1], made[2]


give_gradients(flash4_rows, flash4_rows_backward, lambda q, edges, longest: (q.shape[1], q.shape[0]))


def _rows(edges: torch.Tensor, longest: int, q: torch.Tensor) -> dict[str, Any]:
    longest = min(longest, q.shape[0])
    return {"cu_seqlens_q": edges, "cu_seqlens_k": edges, "max_seqlen_q": longest, "max_seqlen_k": longest}


@functools.cache
def _kernels() -> Any:
    """The package's functions, their compiled code kept between runs. Raises `ImportError` where there are none."""
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache_root() / "flash4"))
    warnings.filterwarnings("ignore", message="Argument aux_data")  # of the package about itself
    from flash_attn.cute import interface

    return interface


@functools.cache
def flash4_agrees(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether FlashAttention 4 is there and gives what PyTorch's usual attention gives, on this device."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] not in FLASH4:
        return False
    try:
        return agrees(flash4_rows, flash4_rows_backward, device, dtype, size)
    except Exception:  # another version than the one that was tried may fail in any way
        return False
