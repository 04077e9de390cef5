"""The speed that progress shows: of the last seconds of training, not of one update."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from toolkit.training.progress import Speed, TrainingProgress, line


def row(tokens: int, seconds: float) -> dict[str, float]:
    return {"real_tokens": tokens, "seconds": seconds}


def test_one_slow_update_is_not_the_run() -> None:
    speed = Speed(10.0)
    for _ in range(50):
        usual = speed.add(row(1000, 0.5))
    assert usual == pytest.approx(2000)
    stalled = speed.add(row(10, 1.0))
    assert stalled is not None and 1500 < stalled < 2000


@given(st.lists(st.tuples(st.integers(1, 10**5), st.floats(0.01, 60)), min_size=1, max_size=40))
def test_speed_lies_between_the_slowest_and_the_fastest_update(rows: list[tuple[int, float]]) -> None:
    speed = Speed(10.0)
    rates = []
    for tokens, seconds in rows:
        found = speed.add(row(tokens, seconds))
        rates.append(tokens / seconds)
        assert found is not None and min(rates) * 0.999 <= found <= max(rates) * 1.001
    if rows[-1][1] >= 10:  # long enough to stand alone
        assert found == pytest.approx(rates[-1])


def test_a_line_leaves_out_what_is_not_known() -> None:
    assert line({"loss": 1.0, "memory": 2**31}, None) == "loss 1.000  2.00 GiB"


ROW = {"loss": 1.234, "learning_rate": 2e-4, "memory": 3 * 2**30, "real_tokens": 345, "seconds": 1.0}


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_bar_keeps_its_counter_and_loss_at_any_width(width: int) -> None:
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=width, color_system=None)
    shown = TrainingProgress(SimpleNamespace(latest=ROW), console)  # type: ignore[arg-type]
    state = SimpleNamespace(max_steps=2943, global_step=1234)
    shown.on_train_begin(None, state, None)
    shown.on_log(None, state, None, {"eval_loss": 0.3456})
    shown.on_log(None, state, None, {"loss": 1.234})
    shown.close()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.getvalue()).rstrip().splitlines()[-1]
    assert "1234/2943" in last and "loss 1.234" in last and "…" not in last and len(last) <= width
    assert ("eval loss 0.346" in last) == (width > 60) and ("tokens/s" in last) == (width >= 80)
    assert ("rate 2.0e-04" in last) == (width >= 120)
