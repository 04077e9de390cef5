"""Verdicts on logs with a planted fault of training.

Detection is nearly certain where the fault is well above the noise; rates are measured over many seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.reports.planted import (
    FACTS,
    FACTS_NOT_ALARMS,
    OVERFIT,
    SEEDS,
    N,
    Rows,
    at_end,
    every,
    falling,
    rate_of,
    rows,
    spaced,
)
from toolkit.reports.log import Facts
from toolkit.reports.reading import read


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_stuck_near_its_start(noise: float) -> None:
    assert rate_of("stuck", lambda seed: rows([3.0] * N, noise, seed)) >= 0.95


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_rate_too_low(noise: float) -> None:
    assert rate_of("rate_low", lambda seed: rows(np.linspace(3.0, 2.98, N), noise, seed, rate=1e-5)) >= 0.95


def test_stuck_is_not_said_of_a_slow_fall() -> None:
    """A fall by 10%, twice what counts as stuck."""
    found = sum(
        bool({"stuck", "rate_low"} & every(rows(np.linspace(3.0, 2.6, N), 0.05, seed))) for seed in range(SEEDS)
    )
    assert found <= 1


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_training_loss_that_goes_up_again(noise: float) -> None:
    shape = np.r_[falling(N // 2), np.linspace(0.85, 1.7, N // 2)]
    assert rate_of("rising", lambda seed: rows(shape, noise, seed)) >= 0.95


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_fast_drop_then_plateau(noise: float) -> None:
    assert rate_of("plateau", lambda seed: rows(falling(N, speed=20), noise, seed)) >= 0.95


@pytest.mark.parametrize(("noise", "groups"), [(0.01, 0), (0.02, 24), (0.1, 24)])
def test_overfitting_and_memorising(noise: float, groups: int) -> None:
    def make(seed: int) -> Rows:
        return rows(falling(N, end=0.1), 0.05, seed, OVERFIT, noise, groups)

    assert rate_of("overfitting", make) >= 0.95
    assert rate_of("memorised", make) >= 0.95


def test_held_out_loss_worse_than_before_training() -> None:
    def make(seed: int) -> Rows:
        return rows(falling(N), 0.05, seed, spaced([1.0, 1.2, 1.4, 1.5, 1.6], N), 0.02, 24)

    assert rate_of("worse_than_base", make) >= 0.95


def test_a_gap_within_the_first_epoch_is_not_memorising() -> None:
    facts = Facts(total=N, warmup=20, per_epoch=300, epochs=0.7)
    found = rows(falling(N, end=0.3), 0.02, 0, spaced([2.5, 1.5, 1.3, 1.2, 1.2], N), 0.005)
    for row in found:
        if "epoch" in row:
            row["epoch"] /= 5
    codes = at_end(found, facts)
    assert "harder" in codes and "memorised" not in codes


def test_a_gap_that_was_there_from_the_start_is_no_memorising() -> None:
    found = rows(falling(N), 0.02, 0, spaced([3.2, 1.9, 1.65, 1.55, 1.52], N), 0.005)
    assert not {"memorised", "harder"} & at_end(found)


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_oscillation_after_the_rate_went_up(noise: float) -> None:
    def make(seed: int) -> Rows:
        random = np.random.default_rng(seed)
        jumps = 0.9 * random.uniform(0.2, 1, N - 40) * np.where(np.arange(N - 40) % 2, 1, -1)
        return rows(np.r_[np.linspace(2.5, 2.2, 40), 2.3 + jumps], noise, seed)

    assert rate_of("oscillating", make) >= 0.9


def test_a_loss_of_exactly_zero_and_one_that_starts_low() -> None:
    zero = [{"update": i, "loss": 0.0, "grad_norm": 0.0} for i in range(1, 5)]
    assert "all_masked" in every(zero)
    low = [{"update": 0, "eval_loss": 0.04}, {"update": 1, "loss": 0.05}]
    assert every(low) - FACTS_NOT_ALARMS == {"low_start"}
    assert not every([{"update": 1, "loss": 0.9}]) - FACTS_NOT_ALARMS


def test_an_evaluation_noisier_than_its_change() -> None:
    noisy = rows(falling(N), 0.05, 0, spaced([1.0, 1.02, 0.99, 1.01, 0.98], N), 0.05, groups=24)
    clear = rows(falling(N), 0.05, 0, spaced([2.0, 1.5, 1.2, 1.1, 1.0], N), 0.05, groups=24)
    assert "too_noisy" in at_end(noisy) and "too_noisy" not in at_end(clear)


def test_advice_to_go_on_longer_names_what_ended_the_run() -> None:
    def advised(found: Rows, code: str, **facts: Any) -> str:
        return next(one.advice for one in read(found, replace(FACTS, **facts)) if one.code == code)

    falls = rows(np.linspace(3, 1, N), 0.02, 0)
    assert advised(falls, "still_falling").startswith("more train.num_train_epochs, or a higher")
    assert advised(falls, "still_falling", minutes=3.5).startswith("a larger train.max_minutes than 3.5, or a higher")
    few = rows(falling(5), 0.02, 0)
    assert advised(few, "too_short", minutes=3.5) == "a larger train.max_minutes than 3.5"
    assert advised(few, "too_short", logging_steps=1).startswith("more updates: more chats")
    sparse = [{**row, "update": 10 * row["update"]} for row in few]
    assert advised(sparse, "too_short", logging_steps=10) == "a smaller train.logging_steps"


def test_still_falling_at_the_end_without_evaluations() -> None:
    assert "still_falling" in at_end(rows(np.linspace(3, 1, N), 0.02, 0))
    assert "still_falling" not in at_end(rows(falling(N, speed=20), 0.02, 0))


def test_a_steep_fall_is_not_drawn_on_below_zero() -> None:
    """The training loss beside an evaluation is one that was seen, not where its line would be by then."""
    losses = [3.0 - 0.17 * i for i in range(17)]  # 0.28 at the last row, and the evaluation comes much later
    found: Rows = [{"update": i + 1, "epoch": 2.0, "loss": loss} for i, loss in enumerate(losses)]
    found.append({"update": 40, "eval_loss": 1.9, "eval_groups": [1.85, 1.9, 1.95, 1.9] * 4, "eval_chats": 64})
    verdict = next(v for v in read(found, FACTS) if v.topic == "generalisation")
    assert "training loss 0.280 beside it" in verdict.evidence
    assert "-0" not in verdict.evidence


@pytest.mark.parametrize(("chats", "said"), [(1, "1 chat was held out"), (4, "4 chats were held out"), (12, "")])
def test_nothing_is_said_of_other_chats_by_a_few(chats: int, said: str) -> None:
    losses = falling(N, end=0.1)
    given_ = rows(losses, 0.02, 0, {0: 2.5, N // 2: 0.12, N: 0.12}, 0.001, 4)
    found = [row | {"eval_chats": chats} if "eval_loss" in row else row for row in given_]
    verdicts = {verdict.topic: verdict for verdict in read(found, FACTS)}
    if said:
        assert verdicts["generalisation"].code == "few_held_out"
        assert f"{said}; 12 are needed" in verdicts["generalisation"].evidence
        assert "eval.holdout" in verdicts["generalisation"].advice
    else:
        assert verdicts["generalisation"].code == "generalises"


def test_a_few_chats_overfit_without_an_alarm_and_the_log_of_before_knows_by_the_recipe() -> None:
    found = rows(falling(N, end=0.1), 0.05, 0, OVERFIT, 0.01)
    assert "overfitting" in at_end(found)
    few = read(found, replace(FACTS, held_out=4))
    assert [v.code for v in few if v.topic in ("overfitting", "generalisation")] == ["few_held_out"]
