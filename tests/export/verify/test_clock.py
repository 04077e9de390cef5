"""Time is shared out by what pieces took, and kept step by step."""

from __future__ import annotations

import time

import pytest
from rich.console import Console

from toolkit.export.verify.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test sets it."""
    at = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: at[0])
    return at


def test_a_share_ends_before_a_piece_that_would_not_fit(now: list[float]) -> None:
    clock = Clock(100, None)
    now[0] = 20
    fits = clock.share(0.5)  # 40 of the 80 that are left: until 60
    answers = []
    for after in (25, 40, 44, 46):
        now[0] = after
        answers.append(fits())
    assert answers == [True, True, True, False]  # the longest piece took 15
    now[0] = 150
    assert clock.left == 0 and not clock.share(1.0)()


def test_steps(now: list[float]) -> None:
    clock = Clock(100, Console(force_terminal=True, quiet=True))
    with clock.step("weights", of=3) as advance:
        now[0] = 2.04
        advance()
    with pytest.raises(ValueError), clock.step("loading", "a.gguf"):
        now[0] = 3.04
        raise ValueError
    assert [(one.name, one.file, one.seconds, one.done, one.of) for one in clock.steps] == [
        ("weights", None, 2.0, 1, 3),
        ("loading", "a.gguf", 1.0, 0, 0),
    ]
