"""Products of frozen weights in float8 (e4m3), on cards whose tensor cores multiply it twice as fast as bfloat16.

Weights are rounded once, with a scale for each row of the product's result; activations and gradients each time, with a
scale for each token. Sums stay in float32 and results in the input's dtype. The adapter's product runs within the
frozen one, each of its values as a sum of two float8 numbers; its gradients do not pass through float8, but for what
the frozen product hands them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toolkit.kernels.float8_rounding import EIGHT, LARGEST, SMALLEST, round_rows

ROOM = 1.01  # for what bfloat16 rounds up in low activations
ALIGNED = 16  # sizes of a product are multiples of it


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
    """Frozen weights of groups alike, one a layer, in float8: for products forward, and turned for those backward.

    Forward's rows [layers, out, in + columns of the adapter] hold s B too, times `shares`, in two numbers of float8 for
    each value, what the first rounds off being in the second; low activations are split alike (`thin`), so that
    an adapter's product is as near as bfloat16's. Both then are of the weights' rows' scales and the tokens', which
    `bounds` keep large enough for the low activations, too.
    """

    def __init__(self, weights: Sequence[torch.Tensor], ranks: int) -> None:
        """`weights` [out, in] each; `ranks` of a group's adapters together."""
        self.inputs, self.ranks = weights[0].shape[1], ranks
        filled = -(-(self.inputs + 3 * ranks) // ALIGNED) * ALIGNED
        layers, outs, device = len(weights), weights[0].shape[0], weights[0].device
        self.rows = torch.zeros(layers, outs, filled, dtype=EIGHT, device=device)
        self.row_scales = torch.empty(layers, outs, 1, device=device)
        self.columns = torch.empty(layers, self.inputs, outs, dtype=EIGHT, device=device)
        self.column_scales = torch.empty(layers, self.inputs, 1, device=device)
        for layer, weight in enumerate(weights):
            self.rows[layer, :, : self.inputs], self.row_scales[layer] = round_rows([weight])
            self.columns[layer], self.column_scales[layer] = round_rows([weight.t().contiguous()])
        self.shares, self.norms = (torch.ones(layers, ranks, device=device) for _ in range(2))
        self.bounds = torch.ones(layers, 1, device=device)

    def of(self, layer: int) -> tuple[torch.Tensor, ...]:
        """What `Float8Product` takes of a layer."""
        tensors = (self.rows, self.row_scales, self.columns, self.column_scales, self.shares, self.bounds)
        return tuple(tensor[layer] for tensor in tensors)

    @torch.no_grad()
    def put(
        self,
        row: int,
        column: int,
        downs: Sequence[torch.Tensor],
        ups: Sequence[torch.Tensor],
        scale: float,
        kept: float,
    ) -> None:
        """Put the adapters of one module of each layer in place: downs [rank, in], ups [out, rank].

        Its outputs begin at `row`, its ranks at `column`. `scale` is the adapter's, `kept` what dropout leaves of x.
        """
        out, rank = ups[0].shape
        scales = self.row_scales[:, row : row + out]
        up = torch.stack(list(ups)).float() * scale / scales
        norms = torch.stack(list(downs)).float().norm(dim=-1)
        share = torch.minimum(norms, LARGEST / up.abs().amax(1)).clamp_min(SMALLEST)
        first, second = _two(up * share[:, None])
        mine = self.rows[:, row : row + out, self.inputs :]
        for part, place in zip((first, second, first), range(3), strict=True):
            start = place * self.ranks + column
            mine[:, :, start : start + rank] = part
        self.shares[:, column : column + rank] = share
        self.norms[:, column : column + rank] = norms / share / kept
        self.bounds.copy_(self.norms.amax(1, keepdim=True).clamp_min(1) * ROOM)


def _two(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x of up to `LARGEST` as the sum of two float8 numbers, within 2^-8 of it or a smallest step."""
    first = x.to(EIGHT)
    return first, (x - first.float()).to(EIGHT)


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
        shares: torch.Tensor,
        bound: torch.Tensor,
        scales: tuple[float, ...],
        *ups: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """x [..., in], low [..., ranks], block [outs, ranks + filling]; then `Frozen.of`. Gives each module's output.

        A token's scale is by its length, which no element of x exceeds, nor, times the bound, any of low's.
        """
        ctx.save_for_backward(low, block, columns, column_scales)
        ctx.scales, ctx.dtype = scales, ups[0].dtype
        ctx.shapes = tuple(tuple(up.shape) for up in ups)
        wide, thin = x.flatten(0, -2).float(), low.flatten(0, -2).float()
        scale = ((wide * wide).sum(-1, keepdim=True).sqrt() * (bound / LARGEST)).clamp_min(SMALLEST)
        first, second = _two((thin / (scale * shares)).clamp(-LARGEST, LARGEST))
        filled = rows.shape[1] - wide.shape[1] - 3 * thin.shape[1]
        parts = [(wide / scale).to(EIGHT), first, first, second]
        if filled:
            parts.append(torch.zeros(wide.shape[0], filled, device=x.device).to(EIGHT))
        with torch.autocast(x.device.type, enabled=False):  # which knows no float8
            joined = torch.cat(parts, dim=-1)
        out = product(joined, scale, rows, row_scales, x.dtype)
        return out.view(*x.shape[:-1], -1).split([up.shape[0] for up in ups], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low, block, columns, column_scales = ctx.saved_tensors
        flat = [gradient.flatten(0, -2) for gradient in gradients]
        eight, scale = round_rows(flat)
        to_x = product(eight, scale, columns, column_scales, low.dtype)
        to_low, ups = adapter_gradients(flat, low.flatten(0, -2), block, ctx.shapes, ctx.scales, ctx.dtype)
        shape = low.shape[:-1]
        return to_x.view(*shape, -1), to_low.view(low.shape), *[None] * 8, *ups


def adapter_gradients(
    gradients: Sequence[torch.Tensor],
    low: torch.Tensor,
    block: torch.Tensor,
    shapes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    dtype: torch.dtype,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(gradient of low [tokens, ranks], those of each B [out, rank]), from each module's gradient [tokens, out].

    block [outs, at least ranks] holds s B of each module, at its rows and its columns.
    """
    to_low = []
    row, column = 0, 0
    for gradient, (out, rank) in zip(gradients, shapes, strict=True):
        to_low.append(gradient @ block[row : row + out, column : column + rank])
        row, column = row + out, column + rank
    return torch.cat(to_low, dim=-1), up_gradients(gradients, low, shapes, scales, dtype)


def up_gradients(
    gradients: Sequence[torch.Tensor],
    low: torch.Tensor,
    shapes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Gradients of each B [out, rank] of a group: gradients [tokens, out] each, low [tokens, ranks]."""
    column, found = 0, []
    for gradient, (_, rank), scale in zip(gradients, shapes, scales, strict=True):
        up = gradient.T @ low[:, column : column + rank]
        found.append((up * scale).to(dtype))
        column += rank
    return found
