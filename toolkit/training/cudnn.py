"""Attention over packed rows by cuDNN's kernels, as one operator that torch.compile leaves whole.

PyTorch has them for rows too, but its variable-length attention calls FlashAttention 2, which leaves half of a Hopper
card's speed unused. As with `toolkit.training.rows`, they are used on a card after they have agreed there with
PyTorch's usual attention.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from toolkit.training.rows import agrees

ATEN = torch.ops.aten
GENERATION = 9  # compute capability's first number: Hopper, the one they were measured to be faster on


@torch.library.custom_op("toolkit::attend_cudnn", mutates_args=())
def attend_cudnn(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within rows: takes and gives what `toolkit.training.rows.attend_rows` does, on CUDA only."""
    return _forward(q, k, v, edges, longest, scale)


@torch.library.custom_op("toolkit::attend_cudnn_backward", mutates_args=())
def attend_cudnn_backward(
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
    """Gradients of q, k and v, given that of what `attend_cudnn` gave."""
    return _backward(gradient, q, k, v, out, logs, edges, longest, scale)


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    packed = (part.contiguous() for part in (q, k, v))
    out, logs, *_ = ATEN._cudnn_attention_forward(
        *packed, None, edges, edges, longest, longest, True, 0.0, True, False, scale=scale
    )
    return out, logs


def _backward(
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
    packed = (part.contiguous() for part in (gradient, q, k, v, out))
    unused = torch.zeros((), dtype=torch.int64, device=q.device)  # the state of a dropout that there is not
    made: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = ATEN._cudnn_attention_backward(
        *packed, logs, unused, unused, None, edges, edges, longest, longest, 0.0, True, scale=scale
    )
    return made


@attend_cudnn.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty(*q.shape[:2], 1, dtype=torch.float32)


@attend_cudnn_backward.register_fake
def _(
    gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, edges, ctx.longest, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, edges)


def _gradients(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    *kept, edges = ctx.saved_tensors
    return (*attend_cudnn_backward(gradient, *kept, edges, ctx.longest, ctx.scale), None, None, None)


attend_cudnn.register_autograd(_gradients, setup_context=_keep)


@functools.cache
def cudnn_agrees(device: torch.device, dtype: torch.dtype, size: int, groups: int) -> bool:
    """Whether cuDNN's kernels are faster on this device, there, and right for `groups` query heads a key head."""
    if device.type != "cuda" or dtype == torch.float32 or not torch.backends.cuda.cudnn_sdp_enabled():
        return False
    if torch.cuda.get_device_capability(device)[0] != GENERATION:
        return False
    return agrees(device, dtype, size, groups, _forward, _backward)
