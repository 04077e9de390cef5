"""Tests and estimates against brute force, and against how often they are wrong on noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.reports import statistics

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@pytest.mark.parametrize("n", [3, 4, 6])
def test_rising_p_is_the_share_of_orders_that_rise_as_much(n: int) -> None:
    def score(values: tuple[int, ...]) -> int:
        return sum((b > a) - (b < a) for a, b in itertools.combinations(values, 2))

    orders = list(itertools.permutations(range(n)))
    for order in orders[:: max(1, len(orders) // 30)]:
        share = sum(score(other) >= score(order) for other in orders) / len(orders)
        assert statistics.rising_p(order) == pytest.approx(share)


def test_ranks_give_published_chances() -> None:
    # Hollander and Wolfe (1973): Kendall's test of tuna (p. 187), the signed-rank test of depression scores (p. 29)
    lightness = [44.4, 45.9, 41.9, 53.3, 44.7, 44.1, 50.7, 45.2, 60.1]
    quality = [2.6, 3.1, 2.5, 5.0, 3.6, 4.0, 5.2, 2.8, 3.8]
    by_lightness = [q for _, q in sorted(zip(lightness, quality, strict=True))]
    assert statistics.rising_p(by_lightness) == pytest.approx(0.05972, abs=5e-6)
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    assert statistics.paired_p(np.subtract(first, second)) == pytest.approx(0.01953, abs=5e-6)


@given(st.lists(numbers, min_size=3, max_size=statistics.MOST_BLOCKS), st.floats(0, 1e6))
def test_ranks_and_slopes_are_scipys(values: list[float], trend: float) -> None:
    order = np.arange(len(values), dtype=np.float64)
    array = np.asarray(values + trend * order, dtype=np.float64)
    ties = len(np.unique(array)) < len(array)
    its = scipy.stats.kendalltau(order, array, method="asymptotic" if ties else "exact", alternative="greater")
    assert statistics.rising_p(array) == pytest.approx(1.0 if np.ptp(array) == 0 else its.pvalue, rel=1e-9)
    assert statistics.slope(order, array) == scipy.stats.theilslopes(array, order).slope


@given(st.lists(numbers, min_size=3, max_size=40))
def test_rising_and_falling_mirror_each_other(values: list[float]) -> None:
    assert statistics.rising_p(values) == pytest.approx(statistics.falling_p([-value for value in values]))
    assert 0 <= statistics.rising_p(values) <= 1


def test_rising_p_with_ties_and_without() -> None:
    assert statistics.rising_p([1.0] * 20) == 1.0
    assert statistics.rising_p([1, 1, 2, 2, 3, 3, 4, 4, 5, 5]) < 0.001
    assert statistics.rising_p(range(500)) < 1e-12
    assert statistics.falling_p(range(500)) > 0.99


def test_rising_p_is_right_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    found = np.array([statistics.rising_p(random.normal(size=30)) for _ in range(2000)])
    for alpha in (0.5, 0.1, 0.01):
        # three standard errors above
        assert (found <= alpha).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 2000)


@settings(max_examples=50)
@given(st.lists(numbers, min_size=6, max_size=30), numbers)
def test_shift_moves_with_the_data(values: list[float], by: float) -> None:
    estimate, low, high = statistics.shift(values, [value + by for value in values], 0.05)
    assert low <= estimate <= high
    assert estimate == pytest.approx(by, abs=1e-6)


def test_shift_covers_the_truth() -> None:
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(1000):
        _, low, high = statistics.shift(random.normal(size=12), random.normal(size=15) + 0.7, 0.05)
        missed += not low <= 0.7 <= high
    assert missed / 1000 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1000)


def test_too_few_values_give_no_bounds() -> None:
    assert statistics.shift([1.0, 2.0], [3.0], 0.01)[1:] == (-math.inf, math.inf)


def test_paired_p_against_all_signs() -> None:
    values = [0.4, -0.1, 0.3, 0.9, -0.2, 0.7]
    ranks = [4, 1, 3, 6, 2, 5]
    below = sum(rank for rank, value in zip(ranks, values, strict=True) if value < 0)
    as_low = sum(
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) <= below
        for signs in itertools.product((0, 1), repeat=6)
    )
    assert statistics.paired_p(values) == pytest.approx(as_low / 64)
    assert statistics.paired_p([1.0] * 2) == 1.0


def test_records_p_on_random_order_and_on_growth() -> None:
    random = np.random.default_rng(2)
    found = np.array([statistics.records_p(random.normal(size=60))[1] for _ in range(2000)])
    assert (found <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert statistics.records_p(range(60))[1] < 1e-9


def test_noise_knows_nothing_of_the_trend() -> None:
    random = np.random.default_rng(3)
    values = np.linspace(5, 1, 400) + random.normal(size=400) * 0.1
    assert statistics.noise(values) == pytest.approx(0.1, rel=0.25)
    assert statistics.slope(range(400), values) == pytest.approx(-4 / 399, rel=0.05)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 70))
def test_medians_are_numpys(values: list[float], most: int) -> None:
    assert statistics.median(values) == np.median(values)
    found = statistics.blocks(values, most)
    if len(values) <= most:
        assert found.tolist() == values
    else:
        assert found.tolist() == [np.median(part) for part in np.array_split(np.array(values), most)]
