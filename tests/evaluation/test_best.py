"""`Best` is the rule that training keeps an adapter by and that reports mark."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.evaluation.best import Best

LOSSES = st.lists(st.floats(0.01, 9.0), min_size=1, max_size=30)


def judged(best: Best, losses: list[float], calls: list[float | None] | None = None) -> Best:
    for update, loss in enumerate(losses):
        row = {"eval_loss": loss}
        if calls is not None and (share := calls[update]) is not None:
            row["eval_calls"] = share
        best.judge(row, update)
    return best


@given(LOSSES)
def test_by_loss_it_is_the_first_lowest(losses: list[float]) -> None:
    best = judged(Best(by_calls=False), losses)
    assert best.found and best.value == min(losses) and best.update == losses.index(min(losses))
    assert best.worse == len(losses) - 1 - best.update


@given(st.lists(st.tuples(st.floats(0.01, 9.0), st.sampled_from([None, 0.0, 0.2, 0.5])), min_size=1, max_size=30))
def test_by_calls_it_has_the_most_and_of_as_many_the_lower_loss(rows: list[tuple[float, float | None]]) -> None:
    best = judged(Best(by_calls=True), [loss for loss, _ in rows], [calls for _, calls in rows])
    measured = [(-calls, loss) for loss, calls in rows if calls is not None]
    assert best.found is bool(measured)
    if measured:
        most, loss = min(measured)
        assert best.value == -most
        assert (rows[best.update][1], rows[best.update][0]) == (-most, loss)


def test_what_is_better_by_less_than_the_threshold_is_not_better() -> None:
    best = judged(Best(by_calls=False, threshold=0.1), [1.0, 0.95, 0.85, 0.8])
    assert (best.update, best.value, best.worse) == (2, 0.85, 1)


@given(LOSSES, st.floats(0.0, 1.0))
def test_what_is_kept_was_trained_and_is_the_best_one_where_that_was(losses: list[float], threshold: float) -> None:
    best = judged(Best(by_calls=False, threshold=threshold), losses)
    alone = Best(by_calls=False, threshold=threshold)
    for update, loss in enumerate(losses[1:], 1):
        alone.judge({"eval_loss": loss}, update)
    assert best.kept == (best.update or alone.update)


def test_by_calls_the_one_kept_has_the_most_right_of_those_trained() -> None:
    best = judged(Best(by_calls=True), [3.0, 2.0, 1.9, 1.8, 1.0], [0.5, 0.1, 0.4, 0.4, None])
    assert (best.update, best.kept) == (0, 3)


@given(st.lists(st.floats(0.01, 9.0), min_size=2, max_size=30), st.integers(0, 30))
def test_what_is_kept_is_remembered(losses: list[float], after: int) -> None:
    whole, first, second = (Best(by_calls=False) for _ in range(3))
    for update, loss in enumerate(losses):
        whole.judge({"eval_loss": loss}, update)
        (first if update < after else second).judge({"eval_loss": loss}, update)
        if update == after - 1:
            second.restore(first.state())
    if after < len(losses):
        assert second == whole


def test_a_state_from_before_the_trained_were_kept_apart() -> None:
    best = Best(by_calls=False)
    best.restore({"update": 2, "worse": 1, "least": [1.0, 0.0]})
    best.judge({"eval_loss": 1.5}, 4)
    assert (best.update, best.kept) == (2, 2)
    best.restore({"update": 0, "worse": 1, "least": [1.0, 0.0]})
    best.judge({"eval_loss": 1.5}, 4)
    best.judge({"eval_loss": 1.6}, 6)
    assert (best.update, best.kept) == (0, 4)
