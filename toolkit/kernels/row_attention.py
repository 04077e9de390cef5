"""Attention over packed rows without flash attention, as one operator that torch.compile leaves whole.

PyTorch's variable-length attention wants newer cards. Its memory-efficient kernels run on older ones too (a T4), take
rows by their edges in one launch and need no copies of keys kept for backward, but cannot be compiled as they are in
torch 2.13 (the shape function of their backward lacks an argument), so they are called from an operator of our own.
They are used on a card after they have agreed there with PyTorch's usual attention, row by row, which also serves CPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

CAUSAL = 1  # the kernels' number for a mask that starts at each row's first token
WINDOW = 70  # tokens of the one that kernels are tried with
AGREE = 0.02  # of the largest value: 16-bit products in another order
ATEN = torch.ops.aten

LogsShape = Callable[[torch.Tensor, torch.Tensor, int], tuple[int, ...]]


@torch.library.custom_op("toolkit::attend_rows", mutates_args=())
def attend_rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, scale: float, window: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within rows of q [tokens, heads, size], k and v [tokens, heads or a divisor of them, size].

    `edges` int32 [rows + 1], from 0 to tokens, may repeat; no row has more than `longest` tokens. A token sees
    `window` tokens, itself among them, or with 0 all of its row before it. Returns what q has the shape of, and
    logarithms for backward.
    """
    if kernel_agrees(q.device, q.dtype, q.shape[-1], windowed=window > 0):
        return _efficient(q, k, v, edges, longest, scale, window)
    return _usual(q, k, v, edges, scale, window), q.new_zeros(logs_shape(q, edges, longest), dtype=torch.float32)


@torch.library.custom_op("toolkit::attend_rows_backward", mutates_args=())
def attend_rows_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logs: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, given that of what `attend_rows` gave."""
    if kernel_agrees(q.device, q.dtype, q.shape[-1], windowed=window > 0):
        return _efficient_backward(gradient, q, k, v, out, logs, edges, longest, scale, window)
    return _usual_backward(gradient, q, k, v, edges, scale, window)


def logs_shape(q: torch.Tensor, edges: torch.Tensor, longest: int) -> tuple[int, ...]:
    """The shape of what the kernels keep for backward; without them nothing is kept."""
    longest = min(longest, q.shape[0])
    return (edges.shape[0] - 1, q.shape[1], -(-longest // 32) * 32) if q.is_cuda else (0,)


def give_gradients(forward: Any, backward: Any, logs: LogsShape) -> None:
    """Make the operator `backward` the gradient of `forward`, for two that are called as `attend_rows` and its own, and
    tell torch.compile the shapes of what both return; `logs`: that of the logarithms of q, the edges and the longest.
    """

    @forward.register_fake
    def made(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, longest: int, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return q.new_empty(q.shape), q.new_empty(logs(q, edges, longest), dtype=torch.float32)

    @backward.register_fake
    def shapes(
        gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        q, k, v, edges, *ctx.settings = inputs
        ctx.save_for_backward(q, k, v, *output, edges)

    def gradients(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*backward(gradient, *ctx.saved_tensors, *ctx.settings), None, *(None for _ in ctx.settings))

    forward.register_autograd(gradients, setup_context=keep)


give_gradients(attend_rows, attend_rows_backward, logs_shape)


def repeated(part: torch.Tensor, heads: int) -> torch.Tensor:
    """[tokens, fewer heads, size] with each head as often as query heads look at it."""
    return part.repeat_interleave(heads // part.shape[1], dim=1)


def _split(edges: torch.Tensor, *parts: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The rows of parts [tokens, heads, size], each as [heads, tokens of the row, size]."""
    sizes = [size for size in edges.diff().tolist() if size]
    return zip(*(part.transpose(0, 1).split(sizes, 1) for part in parts), strict=True)


def hidden_from(tokens: int, window: int, device: torch.device) -> torch.Tensor:
    """Which tokens of a row [seen by, seen] a token does not see: those after it, and those before its `window`, if it
    has one."""
    every = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    return every.triu(1) | every.tril(-window) if window else every.triu(1)


def _usual(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, scale: float, window: int = 0
) -> torch.Tensor:
    parts = []
    for a, b, c in _split(edges, q, repeated(k, q.shape[1]), repeated(v, q.shape[1])):
        if window and a.shape[1] > window:
            seen = ~hidden_from(a.shape[1], window, q.device)
            parts.append(scaled_dot_product_attention(a, b, c, attn_mask=seen, scale=scale))
        else:
            parts.append(scaled_dot_product_attention(a, b, c, is_causal=True, scale=scale))
    return torch.cat(parts, dim=1).transpose(0, 1).contiguous()


def _usual_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    edges: torch.Tensor,
    scale: float,
    window: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Written out, because an operator's body has no autograd; one row's probabilities at a time, in fp32."""
    found: tuple[list[torch.Tensor], ...] = ([], [], [])
    for row in _split(edges, gradient, q, repeated(k, q.shape[1]), repeated(v, q.shape[1])):
        to_out, mine_q, mine_k, mine_v = (part.float() for part in row)
        hidden = hidden_from(mine_q.shape[1], window, q.device)
        scores = (mine_q @ mine_k.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf)
        seen = scores.softmax(-1)
        to_seen = to_out @ mine_v.transpose(1, 2)
        to_scores = seen * (to_seen - (to_seen * seen).sum(-1, keepdim=True)) * scale
        made = (to_scores @ mine_k, to_scores.transpose(1, 2) @ mine_q, seen.transpose(1, 2) @ to_out)
        for list_, part in zip(found, made, strict=True):
            list_.append(part)
    to_q, to_k, to_v = (torch.cat(parts, dim=1).transpose(0, 1).to(q.dtype) for parts in found)
    return to_q.contiguous(), summed(to_k, k), summed(to_v, v)


def summed(wide: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Gradients of what `repeated` made of `part`, as gradients of `part`."""
    tokens, heads, size = part.shape
    return wide.reshape(tokens, heads, -1, size).sum(2)


def _efficient(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = [part[None].contiguous() for part in (q, repeated(k, q.shape[1]), repeated(v, q.shape[1]))]
    longest = min(longest, q.shape[0])  # the kernels refuse more than there are tokens
    out, logs, *_ = ATEN._efficient_attention_forward(
        *wide, None, edges, edges, longest, longest, 0.0, CAUSAL, True, scale=scale, window_size=window or None
    )
    return out[0], logs


def _efficient_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    logs: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    scale: float,
    window: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    heads, longest = q.shape[1], min(longest, q.shape[0])
    wide = [part[None].contiguous() for part in (gradient, q, repeated(k, heads), repeated(v, heads))]
    unused = torch.zeros((), dtype=torch.int64, device=q.device)  # the state of a dropout that there is not
    to_q, to_k, to_v, _ = ATEN._efficient_attention_backward(
        *wide,
        None,
        out[None].contiguous(),
        edges,
        edges,
        longest,
        longest,
        logs,
        0.0,
        unused,
        unused,
        CAUSAL,
        False,
        scale=scale,
        window_size=window or None,
    )
    return to_q[0].contiguous(), summed(to_k[0], k), summed(to_v[0], v)


@functools.cache
def kernel_agrees(device: torch.device, dtype: torch.dtype, size: int, *, windowed: bool = False) -> bool:
    """Whether the memory-efficient kernels are there and give what PyTorch's usual attention gives, on this device."""
    if device.type != "cuda" or not torch.backends.cuda.mem_efficient_sdp_enabled():
        return False
    try:
        return agrees(_efficient, _efficient_backward, device, dtype, size, *([WINDOW] if windowed else []))
    except (RuntimeError, TypeError, ValueError):  # not built for this card, or called otherwise by this torch
        return False


def agrees(
    forward: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    backward: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    device: torch.device,
    dtype: torch.dtype,
    size: int,
    window: int = 0,
) -> bool:
    """Whether functions called as `attend_rows` and its backward give what PyTorch's usual attention gives.

    Tried on random rows, one of them longer than a kernel's tile and some empty. Raises what the functions raise. They
    are told of a `window` only where there is one.
    """
    more = (window,) if window else ()
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        random = torch.Generator(device).manual_seed(0)
        q, k, v, gradient = (
            torch.randn(378, heads, size, device=device, generator=random).to(dtype) for heads in (4, 2, 2, 4)
        )
        edges = torch.tensor([0, 300, 301, 378, 378, 378], dtype=torch.int32, device=device)
        scale = size**-0.5
        expected = (_usual(q, k, v, edges, scale, window), *_usual_backward(gradient, q, k, v, edges, scale, window))
        out, logs = forward(q, k, v, edges, 300, scale, *more)
        found = (out, *backward(gradient, q, k, v, out, logs, edges, 300, scale, *more))
    return all(
        bool((mine.float() - theirs.float()).abs().max() <= AGREE * theirs.float().abs().max())
        for mine, theirs in zip(found, expected, strict=True)
    )
