"""Dropout by a hash: the share that goes, nothing left of one draw in the next, and the mask the same backward."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.kernels.dropout import HashedDropout, kept

SHAPE = (4, 256, 512)


def drawn(p: float = 0.05, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return HashedDropout(p).train()(torch.ones(SHAPE)) != 0


@pytest.mark.parametrize("p", [0.01, 0.05, 0.5])
def test_the_share_that_goes_is_p(p: float) -> None:
    for seed in range(5):
        stays = drawn(p, seed).double()
        for part in (stays, stays[..., ::2], stays[:, 0], stays[..., 7]):
            deviation = math.sqrt(p * (1 - p) / part.numel())
            assert abs(float(part.mean()) - (1 - p)) < 4.5 * deviation


def test_neighbours_and_draws_know_nothing_of_each_other() -> None:
    first, second = drawn(0.5, 0), drawn(0.5, 1)
    pairs = [(first, second), (first[..., :-1], first[..., 1:]), (first[:, :-1], first[:, 1:])]
    pairs += [(first[:2], first[2:]), (first.flatten()[:-512], first.flatten()[512:])]
    for one, other in pairs:
        assert abs(float((one == other).double().mean()) - 0.5) < 4.5 * 0.5 / math.sqrt(one.numel())


def test_seeds_that_differ_by_one_give_other_masks() -> None:
    x = torch.ones(SHAPE)
    masks = [kept(x, torch.tensor([seed], dtype=torch.int32), 0.5) for seed in (7, 8)]
    assert abs(float((masks[0] == masks[1]).double().mean()) - 0.5) < 0.01


def test_torch_s_seed_decides() -> None:
    assert torch.equal(drawn(seed=3), drawn(seed=3))
    assert not torch.equal(drawn(seed=3), drawn(seed=4))


def test_values_are_scaled_and_gradients_go_where_values_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    out = HashedDropout(0.25).train()(x)
    assert float(((out - x / 0.75).abs() < 1e-12).logical_xor(out == 0).double().mean()) == 1
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (out != 0).double() / 0.75)


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(3, 5)
    assert HashedDropout(0.5).eval()(x) is x
    assert HashedDropout(0.0).train()(x) is x
