"""The planner's time against every update that was measured on an H200 and is kept beside the documents, and against
what others published of a T4."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.published import T4, Published, implied, rows
from toolkit.bench_results import Results
from toolkit.planning.cards import CARDS
from toolkit.planning.cost import rates_of
from toolkit.reports.bench_prediction import holds_scores, shape_of, target, update

KEPT = Path(__file__).parents[2] / "docs" / "benchmarks"
FILES = (
    *("2026-11-23-bench/this-4x2048", "2026-11-23-bench/this-real", "2026-11-23-bench/t4-real"),
    *("2026-11-23-bench/t4-4x2048", "2026-11-23-fast-path/all-arms", "2026-11-23-fast-path/t4"),
    *("2026-11-28-fast-path/all-arms", "2026-11-28-fast-path/growth", "2026-11-28-fast-path/kernels"),
    "2026-11-28-fast-path/t4",
)


def compared() -> Iterator[tuple[str, float, bool]]:
    """(name, predicted / measured, whether the host set the pace) of each adapter's arm on the card itself."""
    for file in FILES:
        results = Results.load(KEPT / f"{file}.jsonl")
        shape, flash = shape_of(results), (target(results) or CARDS["h200"]).flash
        rates = rates_of(CARDS["h200"], "bf16", flash=flash)
        assert shape is not None and rates is not None
        for name, arm in results.arms.items():
            seconds = results.seconds(name)
            if (
                seconds is None
                or arm.trained != "adapter"
                or holds_scores(results, arm, target(results) or CARDS["h200"])
            ):
                continue
            found = update(results, arm, shape, rates, flash=flash)
            yield f"{file} {name}", found.total / seconds.median, found.host > found.card


ROWS = list(compared())


def test_all_rows_are_there() -> None:
    assert len(ROWS) == 88


@pytest.mark.parametrize(("name", "ratio"), [row[:2] for row in ROWS if not row[2]])
def test_what_the_card_works_on_is_near_and_never_much_too_fast(name: str, ratio: float) -> None:
    assert 0.85 < ratio < 1.3


def test_the_median_is_near() -> None:
    assert statistics.median(abs(ratio - 1) for _, ratio, host in ROWS if not host) < 0.08
    # where the host sets the pace, one machine's took up to twice as long as another's for the same arm
    waiting = [ratio for _, ratio, host in ROWS if host]
    assert 0.9 < statistics.median(waiting) < 1.15
    assert all(0.6 < ratio < 1.5 for ratio in waiting)


@pytest.mark.parametrize("one", [one for one in T4 if one.model and not one.unsaid], ids=lambda one: one.title)
def test_published_times_imply_chats_as_long_as_their_data_has(one: Published) -> None:
    found = implied(one)
    assert found is not None and found.expected is not None
    assert found.plausible
    assert found.least < found.tokens < found.most
    assert found.tokens == pytest.approx(found.expected, rel=0.1)


def test_a_card_at_its_data_sheets_rates_would_need_chats_far_too_long() -> None:
    """The check can fail: had a T4 the data sheet's rates, chats would have to be twice as long as they are."""
    from dataclasses import replace

    fast = replace(CARDS["t4"], sustained=(50, 50), copied=320)
    found = implied(T4[0], fast)
    assert found is not None and found.plausible is False


def test_what_can_not_be_planned_is_said() -> None:
    assert implied(Published("other", None, 60, 100)) is None
    assert [row[-1] for row in rows() if not row[3]] == ["not planned: another kind of model"] * 5


def test_the_document_has_the_table_that_the_command_prints() -> None:
    page = (KEPT / "2026-11-29-t4-prediction.md").read_text()
    for row in rows():
        assert f"| {' | '.join(row)} |" in page
