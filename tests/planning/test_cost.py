"""Time against updates measured with real chat lengths on one H200; money is time."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.planning.architecture import KNOWN
from toolkit.planning.cards import CARDS
from toolkit.planning.cost import GPU_SPEED, Speed, Work, dollars, predict
from toolkit.planning.lengths import Lengths
from toolkit.planning.steps import updates_of
from toolkit.recipe.schema import Recipe


def lengths() -> Lengths:
    """As in the measurements: 940 tokens on average, some chats cut at 2,048, 4 of them padded by 1.56."""
    tokens = np.concatenate([np.linspace(30, 1780, 1940).round(), np.full(60, 2048)]).astype(np.int64)
    return Lengths(15_694, tokens, 1.0, 0.114, "test", True)


def work(batch: int = 4, accumulation: int = 4, checkpointing: bool = True, evaluations: int = 0) -> Work:
    recipe = Recipe.model_validate(
        {"train": {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}}
    )
    return Work(
        shape=KNOWN["Qwen/Qwen3-1.7B"],
        lengths=lengths(),
        updates=updates_of(recipe, 15_694),
        batch=batch,
        accumulation=accumulation,
        trainable=17_432_576,
        checkpointing=checkpointing,
        evaluations=evaluations,
        eval_chats=200,
        eval_batch=4,
    )


def speed(card: str, engine: str) -> Speed:
    rate = CARDS[card].half
    assert rate is not None
    return Speed(rate * 1e12, *GPU_SPEED[engine])


@pytest.mark.parametrize(
    ("seconds", "engine", "batch", "accumulation"),
    [(2.03, "peft", 4, 4), (1.39, "unsloth", 4, 4), (0.85, "unsloth", 16, 1)],
)
def test_measured_updates(seconds: float, engine: str, batch: int, accumulation: int) -> None:
    assert predict(work(batch, accumulation), speed("h200", engine)).update == pytest.approx(seconds, rel=0.2)


def test_padding_is_what_was_measured() -> None:
    assert predict(work(), speed("h200", "unsloth")).padding == pytest.approx(1.56, abs=0.08)


def test_slow_cards_compute_and_fast_ones_wait() -> None:
    slow, fast = predict(work(), speed("t4", "unsloth")), predict(work(), speed("h200", "unsloth"))
    assert not slow.host_bound
    assert fast.host_bound
    assert slow.update == pytest.approx(slow.flops / (65e12 * 0.40))
    assert slow.total == pytest.approx(2_943 * slow.update)


def test_checkpointing_and_evaluation_take_time() -> None:
    t4 = speed("t4", "unsloth")
    assert predict(work(checkpointing=False), t4).update < predict(work(), t4).update
    once, twice = predict(work(evaluations=1), t4), predict(work(evaluations=2), t4)
    assert twice.evaluation == pytest.approx(2 * once.evaluation)
    assert once.total == pytest.approx(once.training + once.evaluation)


def test_dollars() -> None:
    assert dollars(7_200, 0.60) == pytest.approx(1.20)
