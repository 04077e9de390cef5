"""Attention over packed rows: each token sees its own row's tokens before it and no other's.

Registered with transformers under a name of its own, so that any model written for its attention interface can be
packed; the model's usual attention stays in place for decoding.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from toolkit.hardware import AMPERE
from toolkit.kernels.flash4 import flash4_agrees, flash4_rows
from toolkit.kernels.row_attention import attend_rows, hidden_from, kernel_agrees
from toolkit.kernels.row_states import closed, lacking
from toolkit.kernels.xformers_rows import wanted as wants_xformers
from toolkit.kernels.xformers_rows import why_not, xformers_rows
from toolkit.models.families import family_of

Kernel = Literal["flash4", "flash", "xformers", "rows"]

PACKED = "toolkit_packed"
# newer torch wants to be told that keys serve several heads; before, it just did so
GQA: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters else {}


def can_pack(model: Any, longest: int) -> str | None:
    """Why chats of up to `longest` tokens can't be packed for a PEFT-wrapped model, in words; None when they can."""
    base = model.get_base_model()
    if (why := family_of(base).not_packed(base.config.to_dict(), longest)) is not None:
        return why
    if not hasattr(sys.modules[type(base).__module__], "ALL_ATTENTION_FUNCTIONS"):
        return f"{type(base).__name__} does not use transformers' attention interface"
    return lacking(base)


@contextmanager
def packed(model: Any, *, others: bool = True) -> Iterator[None]:
    """Let a PEFT-wrapped model attend, and carry states, within rows of packed micro-batches, forward and backward
    (recomputation too).

    `others`: as `find_kernel` has it.
    """
    from transformers import AttentionInterface

    # no mask goes with it: to see that none is needed transformers would read the positions, and the host wait for them
    AttentionInterface.register(PACKED, attend if others else _attend_with_pytorch)
    base = model.get_base_model()
    config = base.config
    usual = config._attn_implementation
    config._attn_implementation = PACKED
    try:
        with closed(base):
            yield
    finally:
        config._attn_implementation = usual


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    cu_seq_lens: torch.Tensor,
    sizes: Sequence[int] | None = None,
    longest: int | None = None,
    kernel: Kernel = "rows",
    others: bool = True,
    sliding_window: int | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, size of a head], key and value with as many heads or a divisor of them.

    A compiled layer is not given the rows' `sizes`, for which it would be compiled again with every new list of
    numbers, but `longest`, a bound of them that stays the same, and which `kernel` to use (`find_kernel`, which is
    told of `others` where it is asked here). With a `sliding_window` a token sees so many of its row, itself among
    them.

    Returns [1, tokens, heads, size of a head] and, as transformers wants it, None for the probabilities.
    """
    if longest is None:
        assert sizes is not None
        kernel = find_kernel(query.device, query.dtype, query.shape[-1], others=others)
        if kernel == "rows" and not kernel_agrees(query.device, query.dtype, query.shape[-1]):
            return _rows(query, key, value, sizes, sliding_window, scaling, dropout), None
        longest = max(sizes)
    window = sliding_window if sliding_window and sliding_window < longest else 0
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = scaling or query.shape[-1] ** -0.5
    if kernel == "flash4" and not window:
        out, _ = flash4_rows(q, k, v, cu_seq_lens, longest, scale)
    elif kernel == "xformers" and not window:
        out, _ = xformers_rows(q, k, v, cu_seq_lens, longest, scale)
    elif kernel in ("flash", "flash4"):  # whose window is PyTorch's
        seen = (window - 1, 0) if window else (-1, 0)  # before a token and after it
        made: Any = varlen.varlen_attn(
            q, k, v, cu_seq_lens, cu_seq_lens, longest, longest, scale=scale, window_size=seen, **GQA
        )
        out = made
    else:
        out, _ = attend_rows(q, k, v, cu_seq_lens, longest, scale, window)
    return out[None], None


# the same object each time, for which compiled code is kept
_attend_with_pytorch = functools.partial(attend, others=False)


def find_kernel(device: torch.device, dtype: torch.dtype, size: int, *, others: bool = True) -> Kernel:
    """The fastest attention over rows that there is on this device for heads of `size` numbers.

    Where `others` than PyTorch's are wanted, FlashAttention 4, or xformers on a card before Ampere, each if it is
    installed and agrees with PyTorch; else the flash attention in PyTorch, else `toolkit.kernels.row_attention`.
    """
    if has_flash(device, dtype):
        return "flash4" if others and flash4_agrees(device, dtype, size) else "flash"
    return "xformers" if others and wants_xformers(device) and not why_not(device, dtype, size) else "rows"


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch's variable-length attention runs on this device in this dtype, and flash attention is not off."""
    if device.type != "cuda" or dtype == torch.float32 or not torch.backends.cuda.flash_sdp_enabled():
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


def _rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sizes: Sequence[int],
    window: int | None,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """PyTorch's usual attention, row by row; shapes as in `attend`."""
    groups = query.shape[1] // key.shape[1]
    shared = groups > 1 and query.device.type == "cpu"  # which is flash attention's own there
    if groups > 1 and not shared:
        # without flash attention SDPA would hold all scores where keys serve several heads, so they are repeated
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    parts = []
    for q, k, v in zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True):
        usual: dict[str, Any] = {"is_causal": True}
        if window and q.shape[2] > window:
            usual = {"attn_mask": ~hidden_from(q.shape[2], window, q.device)}
        part = scaled_dot_product_attention(q, k, v, **usual, scale=scaling, dropout_p=dropout, enable_gqa=shared)
        parts.append(part)
    return torch.cat(parts, dim=2).transpose(1, 2)
