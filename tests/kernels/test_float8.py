"""Products in float8: how far they may be from the products they stand for."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.kernels.float8 import Float8Product, Frozen, product
from toolkit.kernels.float8_rounding import round_rows


@given(st.integers(-30, 30), st.integers(0, 9))
def test_values_are_rounded_to_three_bits_of_a_fraction(exponent: int, seed: int) -> None:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    eight, scale = round_rows([x])
    error = (eight.float() * scale - x).abs()
    smallest = 2.0**-9 * scale  # of float8's numbers, below which steps are all alike
    assert bool((error <= 2.0**-4 * x.abs() + smallest).all())


def test_a_row_of_zeros_stays_zero() -> None:
    eight, scale = round_rows([torch.zeros(2, 16)])
    assert torch.equal(eight.float() * scale, torch.zeros(2, 16))


def test_an_outlier_in_one_row_costs_the_others_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 64)
    spoilt = x.clone()
    spoilt[0, 0] = 1e4
    weight, scale = round_rows([torch.randn(32, 64)])
    mine, theirs = (product(eight, of, weight, scale, torch.float32) for eight, of in map(round_rows, ([x], [spoilt])))
    torch.testing.assert_close(mine[1:], theirs[1:])


SIZES, RANKS, SCALES = (32, 16), (4, 2), (2.0, 0.5)


def adapters(large: float, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(A [rank, 64], B [out, rank]) of two modules; B's values are near `large`."""
    random = torch.Generator().manual_seed(seed)
    downs = [torch.randn(rank, 64, generator=random) / 8 for rank in RANKS]
    ups = [torch.randn(out, rank, generator=random) * large for out, rank in zip(SIZES, RANKS, strict=True)]
    return downs, ups


def blocks(weight: torch.Tensor, downs: list[torch.Tensor], ups: list[torch.Tensor]) -> tuple[torch.Tensor, Frozen]:
    """s B in a block, and the weight with it in float8."""
    block, frozen = torch.zeros(48, 64), Frozen([weight], sum(RANKS))
    row, column = 0, 0
    for down, up, scale in zip(downs, ups, SCALES, strict=True):
        block[row : row + len(up), column : column + len(down)] = up.detach() * scale
        frozen.put(row, column, [down], [up.detach()], scale, 1.0)
        row, column = row + len(up), column + len(down)
    return block, frozen


def exactly(x: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, ups: list[torch.Tensor]) -> torch.Tensor:
    parts = low.split(RANKS, dim=-1)
    added = [part @ up.T * scale for part, up, scale in zip(parts, ups, SCALES, strict=True)]
    return x @ weight.T + torch.cat(added, dim=-1)


def test_products_and_gradients_are_near_the_real_ones() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 24, 64, requires_grad=True), torch.randn(48, 64) / 8
    downs, ups = adapters(0.1)
    ups = [up.requires_grad_() for up in ups]
    low = (x @ torch.cat(downs).T).detach().requires_grad_()
    block, frozen = blocks(weight, downs, ups)
    out = torch.cat(Float8Product.apply(x, low, block, *frozen.of(0), SCALES, *ups), dim=-1)  # type: ignore[no-untyped-call]
    exact = exactly(x, low, weight, ups)
    assert float((out.detach() - exact.detach()).norm() / exact.detach().norm()) < 0.04
    gradient = torch.randn_like(exact)
    mine = torch.autograd.grad(out, (x, low, *ups), gradient)
    theirs = torch.autograd.grad(exact, (x, low, *ups), gradient)
    assert float((mine[0] - theirs[0]).norm() / theirs[0].norm()) < 0.04
    for one, other in zip(mine[1:], theirs[1:], strict=True):  # the adapter's own are not in float8
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@given(st.integers(-10, 6), st.integers(-20, 20), st.integers(-8, 8), st.integers(0, 9))
def test_the_adapter_is_as_near_as_in_bfloat16(up: int, x_size: int, down: int, seed: int) -> None:
    """However large its parts are: less than a hundredth off where it weighs as much as the frozen product's error."""
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(24, 64, generator=random) * 2.0**x_size, torch.randn(48, 64, generator=random) / 8
    downs, ups = adapters(2.0**up, seed)
    downs = [part * 2.0**down for part in downs]
    low = x @ torch.cat(downs).T
    block, frozen = blocks(weight, downs, ups)
    tensors = list(frozen.of(0))
    mine = torch.cat(Float8Product.apply(x, low, block, *tensors, SCALES, *ups), dim=-1)  # type: ignore[no-untyped-call]
    tensors[0] = tensors[0].clone()
    tensors[0][:, 64:] = torch.zeros(48, tensors[0].shape[1] - 64).to(tensors[0].dtype)
    without = torch.cat(Float8Product.apply(x, low, block, *tensors, SCALES, *ups), dim=-1)  # type: ignore[no-untyped-call]
    frozen_part = x @ weight.T
    exact = exactly(x, low, weight, ups) - frozen_part
    assert bool(mine.isfinite().all())
    assert float((mine - without - exact).norm()) < 0.01 * float(exact.norm()) + 0.002 * float(frozen_part.norm())
