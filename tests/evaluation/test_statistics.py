from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from toolkit.evaluation.statistics import Paired, Rate, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe (1998), table I, method 3: Wilson's score interval without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float) -> None:
    hits = round(share * n)
    assert wilson(hits, n) == pytest.approx(tuple(binomtest(hits, n).proportion_ci(method="wilson")), abs=1e-12)


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_the_interval_holds_the_share_and_mirrors(n: int, share: float) -> None:
    hits = round(share * n)
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    mirrored = wilson(n - hits, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)


def test_a_rate_leaves_out_what_does_not_apply() -> None:
    rate = Rate.of([True, None, False, 0.5])
    assert (rate.hits, rate.n) == (1.5, 3)
    assert Rate.of([None]).share is None


def test_paired_counts_flips_both_ways() -> None:
    paired = Paired.of([True, True, False, False, False], [True, False, True, True, False])
    assert (paired.n, paired.gained, paired.lost) == (5, 2, 1)
    assert paired.difference == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (6, 0, 0.03125), (9, 1, 22 / 1024), (4, 4, 1.0)],
)
def test_exact_mcnemar(gained: int, lost: int, p_value: float) -> None:
    assert Paired(100, gained, lost).p_value == pytest.approx(p_value)


def test_mcnemar_of_many_flips_neither_overflows_nor_is_zero() -> None:
    assert 0 < Paired(10_000, 3_000, 2_000).p_value < 1e-40
    assert math.isfinite(Paired(10_000, 5_000, 5_000).p_value)


@given(gained=st.integers(0, 50), lost=st.integers(0, 50), same=st.integers(0, 50))
def test_the_interval_of_the_difference_is_within_bounds_and_antisymmetric(gained: int, lost: int, same: int) -> None:
    there, back = Paired(gained + lost + same, gained, lost), Paired(gained + lost + same, lost, gained)
    low, high = there.interval
    assert -1 <= low <= high <= 1
    assert back.interval == pytest.approx((-high, -low))
