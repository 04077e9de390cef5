"""Products in float8: how far they may be from the products they stand for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.engines.compiled import check_float8
from toolkit.engines.float8 import Float8Product, Frozen, product, quantised
from toolkit.errors import EngineError
from toolkit.hardware import Gpu, Hardware


@given(st.integers(-30, 30), st.integers(0, 9))
def test_values_are_rounded_to_three_bits_of_a_fraction(exponent: int, seed: int) -> None:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    eight, scale = quantised(x)
    error = (eight.float() * scale - x).abs()
    smallest = 2.0**-9 * scale  # of float8's numbers, below which steps are all alike
    assert bool((error <= 2.0**-4 * x.abs() + smallest).all())


def test_a_row_of_zeros_stays_zero() -> None:
    eight, scale = quantised(torch.zeros(2, 16))
    assert torch.equal(eight.float() * scale, torch.zeros(2, 16))


def test_an_outlier_in_one_row_costs_the_others_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 64)
    spoilt = x.clone()
    spoilt[0, 0] = 1e4
    weight, scale = quantised(torch.randn(32, 64))
    mine = product(*quantised(x), weight, scale, torch.float32)
    theirs = product(*quantised(spoilt), weight, scale, torch.float32)
    torch.testing.assert_close(mine[1:], theirs[1:])


def test_products_and_gradients_are_near_the_real_ones() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 24, 64, requires_grad=True)
    weight, low = torch.randn(48, 64), torch.randn(2, 24, 6, requires_grad=True)
    ups = [torch.randn(32, 4, requires_grad=True), torch.randn(16, 2, requires_grad=True)]
    scales = (2.0, 0.5)
    block = torch.zeros(48, 64)
    block[:32, :4], block[32:, 4:6] = ups[0].detach() * 2.0, ups[1].detach() * 0.5
    out = Float8Product.apply(x, low, block, *Frozen(weight).tensors, scales, *ups)
    exact = x @ weight.T + torch.cat([low[..., :4] @ ups[0].T * 2.0, low[..., 4:] @ ups[1].T * 0.5], dim=-1)
    assert float((out - exact).norm() / exact.norm()) < 0.04
    gradient = torch.randn_like(exact)
    mine = torch.autograd.grad(out, (x, low, *ups), gradient)
    theirs = torch.autograd.grad(exact, (x, low, *ups), gradient)
    assert float((mine[0] - theirs[0]).norm() / theirs[0].norm()) < 0.04
    for one, other in zip(mine[1:], theirs[1:], strict=True):  # the adapter's own are not in float8
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_cards_without_float8_are_told() -> None:
    here = Hardware(Gpu("NVIDIA A100", 40 << 30, (8, 0)), "a CPU", 8, False, 32 << 30)
    with pytest.raises(EngineError, match=r'A100 has 8\.0; --set train.products="fused"'):
        check_float8(here)
    with pytest.raises(EngineError, match="there is no GPU"):
        check_float8(dataclasses.replace(here, gpu=None))
    assert here.gpu is not None
    check_float8(dataclasses.replace(here, gpu=dataclasses.replace(here.gpu, capability=(8, 9))))
