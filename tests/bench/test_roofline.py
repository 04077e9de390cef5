from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.roofline import moved_bytes, predict
from bench.variants import BY_NAME
from bench.work import update_flops
from toolkit.planning.architecture import KNOWN
from toolkit.planning.cards import CARDS
from toolkit.recipe import load

HERE, T4 = CARDS["h200"], CARDS["t4"]
SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
RECIPE = load(Path("recipes/tools.toml")).recipe


@given(
    flops=st.floats(1e12, 1e16),
    moved=st.floats(1e9, 1e13),
    efficiency=st.floats(0.1, 1.0),
)
def test_bounds_hold_where_nothing_waits(flops: float, moved: float, efficiency: float) -> None:
    """A device-bound run that took what the formula says is predicted between its bounds on a slower card."""
    assert HERE.half and HERE.bandwidth
    measured = (flops / (HERE.half * 1e12) + moved / (HERE.bandwidth * 1e9)) / efficiency
    found = predict(flops, moved, efficiency, measured, HERE, T4)
    assert found is not None
    assert found.least <= found.seconds <= found.most * (1 + 1e-9)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_run_that_waits_for_the_host_shows_as_error() -> None:
    assert HERE.half
    found = predict(100e12, 1e9, 0.8, 2.0, HERE, T4)
    assert found is not None
    assert found.error < -0.9
    assert found.seconds == pytest.approx(100e12 / 65e12 / 0.8, rel=0.01)


def test_nothing_is_predicted_for_unknown_rates() -> None:
    from dataclasses import replace

    assert predict(1e12, 1e9, 0.8, 1.0, replace(HERE, half=None), T4) is None


def test_flops_of_variants() -> None:
    sizes = {"padded": 32768, "width": 2048, "trained": 3736, "trainable": 17_432_576}
    plain = update_flops(SHAPE, BY_NAME["peft"], RECIPE, **sizes)
    # 6 x 1.409e9 x tokens for forward, recomputation and backward, and the head and attention on top
    assert 6 * SHAPE.linear_parameters * 32768 < plain < 1.2 * 6 * SHAPE.linear_parameters * 32768
    everywhere = update_flops(SHAPE, BY_NAME["peft-logits"], RECIPE, **sizes)
    assert everywhere - plain == pytest.approx(4 * SHAPE.head_parameters * (32768 - 3736))
    full = update_flops(SHAPE, BY_NAME["full"], RECIPE, **{**sizes, "trainable": 0})
    assert full > plain + 1.9 * SHAPE.linear_parameters * 32768 - 8 * 17_432_576 * 32768


def test_bytes_grow_with_tokens_and_passes() -> None:
    one = moved_bytes(SHAPE, BY_NAME["unsloth"], RECIPE, 10_000)
    two = moved_bytes(SHAPE, BY_NAME["unsloth"], RECIPE, 20_000)
    assert one < two < 2 * one  # the weights are read again for each micro-batch, not for each token
    off = RECIPE.model_copy(update={"train": RECIPE.train.model_copy(update={"gradient_checkpointing": False})})
    assert moved_bytes(SHAPE, BY_NAME["unsloth-nockpt"], off, 10_000) < one
