"""What ranks tell of the updates that they share."""

from __future__ import annotations

import time

import pytest

from toolkit.training.shared_time import SharedTime, shared_updates


def test_tokens_and_times_of_ranks_are_put_together() -> None:
    one = ([100, 90, 100], [0.001, 0.010, 0.002])
    other = ([100, 100, 50], [0.003, 0.004, 0.022])
    found = shared_updates((one, other), [0.2, 0.1, 0.1])
    assert found is not None
    assert found.balance == pytest.approx((1 + 0.95 + 0.75) / 3)
    assert found.summing == 0.002 and found.update == 0.1  # the least of each update: 1, 4 and 2 ms
    assert found.waiting == pytest.approx(0.006)  # 2, 6 and 20 ms
    said = "of 0.100 s an update 2.0 ms (2.0%) go into summing gradients, 6.0 ms (6.0%) into waiting"
    assert found.line() == f"tokens 90.0% even; {said}"


def test_an_update_that_was_drawn_and_not_made_does_not_count() -> None:
    found = shared_updates((([10, 7], [0.1]), ([10, 1], [0.1])), [1.0])
    assert found is not None and found.balance == 1.0


def test_no_update_tells_nothing() -> None:
    assert shared_updates((([], []), ([], [])), []) is None
    assert shared_updates((), [0.1]) is None


def test_a_rank_times_from_its_own_part_to_the_sum() -> None:
    shared = SharedTime(cuda=False)
    for _ in range(2):  # made again, where memory has run out
        shared.own_part_ends()
    time.sleep(0.002)
    shared.summed()
    tokens, seconds = shared.read()
    assert tokens == [] and len(seconds) == 1 and seconds[0] >= 0.002
