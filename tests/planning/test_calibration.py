from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from toolkit.planning.calibration import FORMULA, Pair, error_of, past_error, record, store

PAIR = Pair("2026-01-02", "h200", "unsloth", "unsloth", "real", "Qwen/Qwen3-1.7B", 5.5e9, 5.0e9, 1.0, 2.0, FORMULA)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))


def test_errors_are_of_this_engine_and_card_only() -> None:
    assert past_error("unsloth", "h200") is None
    record([PAIR, replace(PAIR, card="t4", measured_memory=1e9), replace(PAIR, engine="peft", measured_memory=1e9)])
    found = past_error("unsloth", "h200")
    assert found is not None
    assert (found.count, found.memory, found.seconds) == (1, pytest.approx(0.1), pytest.approx(0.5))
    assert "memory 10% off in the median, 10% at worst; time 50%" in str(found)


def test_a_variant_measured_again_counts_once() -> None:
    record([PAIR])
    record([replace(PAIR, measured_memory=5.5e9)])
    found = past_error("unsloth", "h200")
    assert found is not None
    assert (found.count, found.memory) == (1, 0)


def test_median_and_worst() -> None:
    pairs = [replace(PAIR, predicted_memory=5e9 * factor) for factor in (1.0, 0.9, 1.3)]
    found = error_of(pairs)
    assert found is not None
    assert (found.memory, found.memory_worst) == (pytest.approx(0.1), pytest.approx(0.3))


def test_no_time_predicted() -> None:
    found = error_of([replace(PAIR, predicted_seconds=None)])
    assert found is not None
    assert found.seconds is None
    assert "time" not in str(found)


def test_damaged_lines_and_those_of_other_versions_are_passed_over() -> None:
    record([PAIR])
    with store().open("a") as file:
        file.write('{"something": "else"}\n\xff\n[]\n\n')
        whole = asdict(PAIR)
        for wrong in ({"measured_memory": 0.0}, {"measured_memory": "5e9"}, {"predicted_seconds": "NaN"}, {"more": 1}):
            file.write(json.dumps({**whole, "shape": str(wrong), **wrong}) + "\n")
    record([replace(PAIR, variant="unsloth-nockpt")])
    found = past_error("unsloth", "h200")
    assert found is not None
    assert found.count == 2


def test_errors_of_other_formulas_do_not_count() -> None:
    record([replace(PAIR, formula=FORMULA - 1)])
    assert past_error("unsloth", "h200") is None
    with store().open("a") as file:  # as versions wrote it that did not say by which
        file.write('{"date": "2026-01-02", "card": "h200", "engine": "unsloth"}\n')
    assert past_error("unsloth", "h200") is None
