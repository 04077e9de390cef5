"""Attention over packed rows by xformers' block-diagonal causal mask, as an operator that torch.compile leaves whole.

For cards without flash attention, as a T4. There xformers 0.0.35 runs PyTorch's own memory-efficient kernels, those
of `toolkit.kernels.row_attention`: the same bits in the same time, measured on an H200 (docs/benchmarks). Where its
compiled library does not load, as beside a torch of another CUDA, it refuses to. It is imported on such a card only,
and used after it has agreed there with PyTorch's usual attention. The mask is put together by hand, from edges that
stay on the card, where xformers would ask for the rows' lengths as Python's numbers and the host would wait for them
in each layer.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any

import torch

from toolkit.errors import first_line
from toolkit.hardware import AMPERE
from toolkit.kernels.row_attention import agrees, give_gradients, logs_shape, repeated, summed


@torch.library.custom_op("toolkit::xformers_rows", mutates_args=())
def xformers_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within rows of q [tokens, heads, size], k and v [tokens, heads or a divisor of them, size].

    `edges` int32 [rows + 1], from 0 to tokens, may repeat; no row has more than `longest` tokens. Returns what q has
    the shape of, and logarithms [rows, heads, longest rounded up to 32] for backward.
    """
    fmha = attention()
    out, logs = fmha.memory_efficient_attention_forward_requires_grad(
        *_batched(q, k, v), mask(edges, longest, q.shape[0]), scale=scale, op=fmha.cutlass.FwOp
    )
    return out[0], logs


@torch.library.custom_op("toolkit::xformers_rows_backward", mutates_args=())
def xformers_rows_backward(
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
    """Gradients of q, k and v, given that of what `xformers_rows` gave."""
    fmha = attention()
    to_q, to_k, to_v = fmha.memory_efficient_attention_backward(
        gradient[None].contiguous(),
        out[None].contiguous(),
        logs,
        *_batched(q, k, v),
        mask(edges, longest, q.shape[0]),
        scale=scale,
        op=fmha.cutlass.BwOp,
    )
    return to_q[0].contiguous(), summed(to_k[0], k), summed(to_v[0], v)


give_gradients(xformers_rows, xformers_rows_backward, logs_shape)


def _batched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
    """[1, tokens, heads, size] each. Keys and values are repeated for their query heads: of groups of heads xformers
    would make a launch each, on streams of their own, which a CUDA graph is not to record."""
    return [q[None], repeated(k, q.shape[1])[None], repeated(v, q.shape[1])[None]]


def mask(edges: torch.Tensor, longest: int, tokens: int) -> Any:
    """xformers' mask for rows from edge to edge, none of them with more than `longest` of the `tokens`.

    Only an upper bound of the lengths is read by the kernels; what xformers keeps as Python's numbers, to split
    tensors by, says that there is one row.
    """
    attn_bias = attention().attn_bias
    rows = attn_bias._SeqLenInfo(seqstart=edges, max_seqlen=min(longest, tokens), min_seqlen=0, seqstart_py=[0, tokens])
    return attn_bias.BlockDiagonalCausalMask(q_seqinfo=rows, k_seqinfo=rows)


@functools.cache
def attention() -> Any:
    """xformers' functions for attention. Raises what the import raises where it is not there or does not load."""
    log = logging.getLogger("xformers")
    level = log.level
    log.setLevel(logging.ERROR)  # else it warns of its library, which attention does without
    try:
        from xformers.ops import fmha
    finally:
        log.setLevel(level)
    return fmha


def wanted(device: torch.device) -> bool:
    """Whether this is a card that it is for."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) < AMPERE


@functools.cache
def why_not(device: torch.device, dtype: torch.dtype, size: int) -> str:
    """Why it is not used for heads of `size` numbers on a card that it is for, in words; empty where it is.

    Imports xformers where it is installed.
    """
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    try:
        attention()
    except Exception as error:  # built for another torch or Python it may fail in any way
        return f"xformers does not load: {first_line(error)[:200]}"
    try:
        same = agrees(xformers_rows, xformers_rows_backward, device, dtype, size)
    except Exception as error:  # another version may be called otherwise, or have no kernel for this card
        return f"xformers does not run on this card: {_reason(error)[:200]}"
    return "" if same else "xformers gives other numbers on this card than PyTorch"


def _reason(error: Exception) -> str:
    """The first reason of those it gives for inputs that it does not support, below them."""
    reasons = str(error).partition("is not supported because:")[2].split("\n")
    return next((line.strip() for line in reasons if line.strip()), first_line(error))
