"""Products of frozen weights in float8 (e4m3), on cards whose tensor cores multiply it twice as fast as bfloat16.

Weights are rounded once, with a scale for each row of the product's result; activations and gradients each time, with a
scale for each token. Sums stay in float32 and results in the input's dtype; the adapter and its gradients do not pass
through float8, but for what the frozen product hands them.
"""

from __future__ import annotations

from typing import Any

import torch

EIGHT = torch.float8_e4m3fn
LARGEST = torch.finfo(EIGHT).max
SMALLEST = 1e-12  # scale of a row of zeros
CAPABILITY = (8, 9)  # the first with float8 products: Ada, Hopper and newer
ALIGNED = 16  # sizes of a product are multiples of it


def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(x [rows, columns] in float8, scales float32 [rows, 1]); their product is x within 2^-4 of each value."""
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(SMALLEST)
    return (wide / scale).clamp(-LARGEST, LARGEST).to(EIGHT), scale


def product(
    a: torch.Tensor, a_scale: torch.Tensor, b: torch.Tensor, b_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """a [m, k] times the transpose of b [n, k], both float8 with scales [m, 1] and [n, 1]; gives [m, n] in `dtype`.

    Devices without such products get the same numbers from products in float32.
    """
    if a.is_cuda:
        return torch._scaled_mm(a, b.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=dtype, use_fast_accum=True)
    return ((a.float() @ b.float().T) * a_scale * b_scale.T).to(dtype)


class Frozen:
    """A frozen weight [out, in] in float8 for products forward, and turned, with scales of its own, for backward."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.rows, self.row_scales = quantised(weight)
        self.columns, self.column_scales = quantised(weight.t().contiguous())

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.rows, self.row_scales, self.columns, self.column_scales


class Float8Product(torch.autograd.Function):
    """x W^T + low U^T for a weight in float8 and U in x's dtype, with gradients of x, low and what U is made of."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        low: torch.Tensor,
        block: torch.Tensor,
        rows: torch.Tensor,
        row_scales: torch.Tensor,
        columns: torch.Tensor,
        column_scales: torch.Tensor,
        scales: tuple[float, ...],
        *ups: torch.Tensor,
    ) -> torch.Tensor:
        """x [..., in], low [..., ranks], block [outs, ranks + filling]; the rest is `Frozen.tensors`."""
        ctx.save_for_backward(low, block, columns, column_scales)
        ctx.scales, ctx.dtype = scales, ups[0].dtype
        ctx.shapes = tuple(tuple(up.shape) for up in ups)
        out = product(*quantised(x.flatten(0, -2)), rows, row_scales, x.dtype)
        adapter = low.flatten(0, -2) @ block[:, : low.shape[-1]].T
        return (out + adapter).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low, block, columns, column_scales = ctx.saved_tensors
        (gradient,) = gradients
        flat = gradient.flatten(0, -2)
        to_x = product(*quantised(flat), columns, column_scales, gradient.dtype)
        to_low = flat @ block[:, : low.shape[-1]]
        ups = up_gradients(flat, low.flatten(0, -2), ctx.shapes, ctx.scales, ctx.dtype)
        shape = gradient.shape[:-1]
        return to_x.view(*shape, -1), to_low.view(*shape, -1), *[None] * 6, *ups


def up_gradients(
    gradient: torch.Tensor,
    low: torch.Tensor,
    shapes: tuple[tuple[int, int], ...],
    scales: tuple[float, ...],
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Gradients of each B [out, rank] of a group: gradient [tokens, outs], low [tokens, ranks]."""
    row, column, found = 0, 0, []
    for (out, rank), scale in zip(shapes, scales, strict=True):
        up = gradient[:, row : row + out].T @ low[:, column : column + rank]
        found.append((up * scale).to(dtype))
        row, column = row + out, column + rank
    return found
