"""Whether to go on: by right answers where they are measured, not by the held-out loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.reports.planted import (
    FACTS,
    GOOD_EVALUATIONS,
    OVERFIT,
    RECORDED,
    N,
    Rows,
    at_end,
    falling,
    rows,
    spaced,
)
from toolkit.reports.log import read_metrics
from toolkit.reports.reading import Reader, read
from toolkit.reports.verdicts import Verdict


def with_calls(found: Rows, shares: dict[int, float]) -> Rows:
    return [
        row | {"eval_calls": shares[row["update"]]} if "eval_loss" in row and row["update"] in shares else row
        for row in found
    ]


def stopping(found: Rows, decoded: int = 200) -> list[Verdict]:
    """What is said at the end about going on: one verdict, or none."""
    return [v for v in read(found, replace(FACTS, decoded=decoded)) if v.topic == "overfitting"]


def code_of(found: Rows, decoded: int = 200) -> str:
    (verdict,) = stopping(found, decoded)
    return verdict.code


MEMORISED = rows(falling(N, end=0.1), 0.05, 0, OVERFIT, 0.01, 24)


RISING = spaced([0.1, 0.4, 0.55, 0.62, 0.7, 0.74, 0.78, 0.8, 0.82], N)


def test_a_rising_loss_does_not_stop_a_run_whose_right_answers_rise() -> None:
    assert code_of(MEMORISED) == "overfitting" and "memorised" in at_end(MEMORISED)
    found = with_calls(MEMORISED, RISING)
    (verdict,) = stopping(found)
    assert (verdict.code, verdict.level) == ("loss_up_answers_not_down", "note")
    assert "go on" in verdict.title and "55% at update 50, 82% at update 200, of 200 chats" in verdict.evidence
    assert not {v.level for v in read(found, replace(FACTS, decoded=200))} & {"stop", "warning"}


@pytest.mark.parametrize(("last", "code"), [(0.65, "fewer_right"), (0.79, "loss_up_answers_not_down")])
def test_right_answers_stop_a_run_where_they_surely_become_fewer(last: float, code: str) -> None:
    """Of 200, 65% after 82% is no chance, 79% is."""
    shares = RISING | {N: last, 175: 0.82}
    assert code_of(with_calls(MEMORISED, shares)) == code
    # whatever the loss does
    good = with_calls(
        rows(falling(N), 0.05, 0, GOOD_EVALUATIONS, 0.01, 24), spaced([0.1, 0.5, 0.7, 0.8, 0.82, 0.82, last], N)
    )
    assert bool(stopping(good)) is (code == "fewer_right")


@pytest.mark.parametrize("shares", [{0: 0.1}, {}])
def test_answers_that_were_decoded_once_decide_nothing(shares: dict[int, float]) -> None:
    assert code_of(with_calls(MEMORISED, shares)) == "overfitting"


def test_few_answers_decide_nothing() -> None:
    assert code_of(with_calls(MEMORISED, RISING), decoded=12) == "overfitting"


def test_chance_alone_rarely_makes_right_answers_fewer() -> None:
    """Nine decodings of 200 chats of a model that does not change."""
    blamed = 0
    for seed in range(60):
        hits = np.random.default_rng(seed).binomial(200, 0.8, size=9) / 200
        found = with_calls(rows(falling(N), 0.05, seed, spaced([0.9] * 9, N)), spaced(hits, N))
        reader = Reader(replace(FACTS, decoded=200))
        blamed += any(v.code == "fewer_right" for row in found for v in reader.feed(row))
    assert blamed <= 3


def test_a_real_run_whose_loss_was_lowest_after_a_third() -> None:
    """60,000 built-in chats on an H200: least loss at update 626 of 1,875, 68% right at 939, 73% at the end."""
    rows_ = read_metrics(RECORDED.parents[2] / "docs" / "benchmarks" / "2026-11-23-eval" / "mix-metrics.jsonl")
    verdict = next(
        v for v in read(rows_, replace(FACTS, total=1875, epochs=1, decoded=400)) if v.topic == "overfitting"
    )
    assert verdict.code == "loss_up_answers_not_down"
    assert "68% at update 939, 73% at update 1875" in verdict.evidence
