"""The speed that progress shows: of the last seconds of training, not of one update."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.training.progress import Speed, line


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
