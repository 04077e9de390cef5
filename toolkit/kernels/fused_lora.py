"""LoRA within the frozen product: one matrix product for all modules that read the same input, their adapters in it.

For modules of one input x, weights W stacked by rows and adapters (A, B, s),

    [x, A x] @ [W, s B]^T = x W^T + s (A x) B^T

so the adapter costs a few more columns of a product that runs anyway, instead of products of its own over all
activations and a sum; backward the same product gives the gradients of x and of A x at once. The weights move into
one block with columns for s B, and each module keeps a view of its rows, so whatever else reads them (decoding, saving,
merging) finds them where they were.

With `float8` the frozen weights' products are in 8 bits (`toolkit.kernels.float8`) and the block holds s B alone.

LoRA's dropout is drawn once for the modules of one input, not once for each; otherwise this is what PEFT computes, with
B's product summed before it is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn

from toolkit.kernels.float8 import ALIGNED, Float8Product, Frozen, up_gradients
from toolkit.models.families import Family

ALIGN = 64  # columns that a block is filled up to a multiple of: whole tiles of a product
ADAPTER = "default"


class Group:
    """Modules of one input, in the order in which the model calls them. `active`: whether they run as one.

    `apart`: only the last one's output is kept for backward, so that it needs storage of its own to let the others go.
    `float8`: products of the frozen weights in 8 bits.
    """

    def __init__(self, members: Sequence[Linear], *, apart: bool = False, float8: bool = False) -> None:
        self.members, self.apart = tuple(members), apart
        self.active = False
        self.made: tuple[torch.Tensor, ...] = ()
        self.ranks = tuple(member.r[ADAPTER] for member in members)
        self.scales = tuple(float(member.scaling[ADAPTER]) for member in members)
        self.outs = tuple(member.base_layer.out_features for member in members)
        weights = [member.base_layer.weight.detach() for member in members]
        self.inputs = members[0].base_layer.in_features
        self.alike: Alike | None = None  # and its share of it, under float8
        self.eight: tuple[torch.Tensor, ...] = ()
        inputs = 0 if float8 else self.inputs
        columns = -(-(inputs + sum(self.ranks)) // ALIGN) * ALIGN
        self.block = torch.zeros(sum(self.outs), columns, dtype=weights[0].dtype, device=weights[0].device)
        self.places = []  # of each member's s B
        row, column = 0, inputs
        for member, weight, rank, out in zip(members, weights, self.ranks, self.outs, strict=True):
            mine = self.block[row : row + out]
            if not float8:
                mine[:, :inputs] = weight
                member.base_layer.weight.data = mine[:, :inputs]
            self.places.append(mine[:, column : column + rank])
            row, column = row + out, column + rank

    def __call__(self, place: int, x: torch.Tensor) -> torch.Tensor:
        """What member `place` gives for x [..., in]. The first computes for all, and the others take what it left."""
        if place == 0:
            self.made = self.products(x)
        mine = self.made[place]
        if place == len(self.members) - 1:
            self.made = ()
        return mine

    def products(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The members' outputs, each [..., out]."""
        x = x.to(self.block.dtype)
        down = torch.cat([member.lora_A[ADAPTER].weight for member in self.members]).to(x.dtype)
        low = self.members[0].lora_dropout[ADAPTER](x) @ down.T
        ups = [member.lora_B[ADAPTER].weight for member in self.members]
        outs: tuple[torch.Tensor, ...]
        if self.eight:
            outs = Float8Product.apply(x, low, self.block, *self.eight, self.scales, *ups)  # type: ignore[no-untyped-call]
        else:
            outs = Product.apply(x, low, self.block, self.scales, *ups)  # type: ignore[no-untyped-call]
        *others, last = outs
        return *others, last.clone() if self.apart else last


class Product(torch.autograd.Function):
    """[x, A x] @ [W, s B]^T, with gradients of x, of A x and of each B, and none of W."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        low: torch.Tensor,
        block: torch.Tensor,
        scales: tuple[float, ...],
        *ups: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """x [..., in], low [..., ranks], block [outs, in + ranks + filling], ups [out, rank]; gives [..., out] each."""
        ctx.save_for_backward(low, block)  # all that x gave to the gradients of B is in low
        ctx.inputs, ctx.scales, ctx.dtype = x.shape[-1], scales, ups[0].dtype
        ctx.shapes = tuple(tuple(up.shape) for up in ups)
        filled = block.shape[1] - x.shape[-1] - low.shape[-1]
        parts = [x, low, x.new_zeros(*x.shape[:-1], filled)] if filled else [x, low]
        return (torch.cat(parts, dim=-1) @ block.T).split([up.shape[0] for up in ups], dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low, block = ctx.saved_tensors
        outs = [gradient.shape[-1] for gradient in gradients]
        if min(outs) > ctx.inputs:  # sums of the narrow products cost less than a copy of the wide gradients
            both = sum(part @ rows for part, rows in zip(gradients, block.split(outs), strict=True))
        else:
            both = torch.cat(gradients, dim=-1) @ block
        flat = [gradient.flatten(0, -2) for gradient in gradients]
        ups = up_gradients(flat, low.flatten(0, -2), ctx.shapes, ctx.scales, ctx.dtype)
        ranks = low.shape[-1]
        to_x, to_low, _ = both.split([ctx.inputs, ranks, block.shape[1] - ctx.inputs - ranks], dim=-1)
        return to_x, to_low, None, None, *ups


class Fused(Linear):  # type: ignore[misc]
    """A PEFT layer that runs within its group while the group is active, and as PEFT's otherwise."""

    group: Group
    place: int

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.group.active:
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        return self.group(self.place, x)


def fuse(layers: Sequence[nn.Module], family: Family, dtype: torch.dtype, *, float8: bool = False) -> list[Group]:
    """Groups of those modules of decoder `layers` that can run as one; `dtype` is that of the products.

    Left alone are weights of another dtype or in 4 bits, DoRA, biases, modules without an adapter, and under `float8`
    those whose sizes its products do not take.
    """
    groups = []
    for layer in layers:
        for part, shared in family.same_input.items():
            for names in shared:
                found = [getattr(getattr(layer, part, None), name, None) for name in names]
                members = [one for one in found if type(one) is Linear and _plain(one, dtype, float8)]
                if members:  # backward wants values; queries and keys as they were before rotation for a norm's sake
                    apart = names[-1] == "v_proj" and not hasattr(getattr(layer, part), "q_norm")
                    groups.append(Group(members, apart=apart, float8=float8))
    if float8:
        _share(groups)
    for group in groups:
        for place, member in enumerate(group.members):
            member.__class__ = Fused
            member.group, member.place = group, place
    return groups


class Alike:
    """Groups of one kind, one a layer, whose weights are in float8 in one block, for few operations to refresh all."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        weights = [torch.cat([member.base_layer.weight.detach() for member in group.members]) for group in groups]
        self.frozen = Frozen(weights, sum(groups[0].ranks))
        for place, group in enumerate(groups):
            group.alike, group.eight = self, self.frozen.of(place)

    def refresh(self) -> None:
        first, row, column = self.groups[0], 0, 0
        kept = 1 - float(getattr(first.members[0].lora_dropout[ADAPTER], "p", 0.0))
        for place, (out, rank, scale) in enumerate(zip(first.outs, first.ranks, first.scales, strict=True)):
            members = [group.members[place] for group in self.groups]
            downs = [member.lora_A[ADAPTER].weight for member in members]
            ups = [member.lora_B[ADAPTER].weight for member in members]
            self.frozen.put(row, column, downs, ups, scale, kept)
            row, column = row + out, column + rank


def _share(groups: Sequence[Group]) -> None:
    """Put the weights of groups of the same sizes and scales together in float8."""
    found: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        dropout = getattr(group.members[0].lora_dropout[ADAPTER], "p", 0.0)
        found.setdefault((group.inputs, group.outs, group.ranks, group.scales, dropout), []).append(group)
    for alike in found.values():
        Alike(alike)


def _plain(module: Linear, dtype: torch.dtype, float8: bool) -> bool:
    base = module.base_layer
    return (
        type(base) is nn.Linear
        and base.bias is None
        and base.weight.dtype == dtype
        and not (float8 and any(size % ALIGNED for size in base.weight.shape))
        and list(module.lora_A) == [ADAPTER]
        and not module.lora_variant
        and not module.lora_bias.get(ADAPTER, False)
    )


@torch.no_grad()
def refresh(groups: Sequence[Group]) -> None:
    """Put s B where the blocks want it. Each time, because a fused optimizer leaves no sign that it has changed B."""
    if groups:
        ups = [member.lora_B[ADAPTER].weight for group in groups for member in group.members]
        scaled = torch._foreach_mul(ups, [scale for group in groups for scale in group.scales])
        torch._foreach_copy_([place for group in groups for place in group.places], scaled)
    for alike in dict.fromkeys(group.alike for group in groups if group.alike):
        alike.refresh()


@contextmanager
def fused(groups: Sequence[Group]) -> Iterator[None]:
    """Run the groups as one product each; only with all of a decoder layer's modules called in their order."""
    refresh(groups)
    for group in groups:
        group.active = True
    try:
        yield
    finally:
        for group in groups:
            group.active, group.made = False, ()
