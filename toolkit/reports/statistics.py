"""Tests and estimates that a few wild values can't move: medians, ranks, and how often they are wrong.

Everything takes plain sequences of finite numbers. A p-value is how often noise alone (values in random order) looks
at least this much like what is asked for.

scipy.stats takes a second to import, and a training run's log is read from its first row on: it is imported in the
functions that use it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NORMAL = statistics.NormalDist()
MAD_TO_SIGMA = 1.4826  # of normal noise (Rousseeuw and Croux 1993)
MOST_BLOCKS = 64  # pairs of values are compared; blocks of several rows are also less alike than neighbouring rows


def median(values: Sequence[float] | Array) -> float:
    """NaN where there is no value. On the few values of a log, a tenth of what numpy's own takes."""
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else math.nan


def mad_sigma(values: Sequence[float] | Array) -> float:
    """Standard deviation by the median absolute deviation."""
    array = np.asarray(values, dtype=float)
    return MAD_TO_SIGMA * median(np.abs(array - median(array)))


def noise(values: Sequence[float] | Array) -> float:
    """Standard deviation of the noise on a slowly changing series, by its successive differences; 0 below 2 values."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return 0.0
    return MAD_TO_SIGMA * median(np.abs(np.diff(array))) / math.sqrt(2)


def blocks(values: Sequence[float] | Array, most: int = MOST_BLOCKS) -> Array:
    """Medians of at most `most` stretches of nearly equal length; the values themselves when there are no more."""
    array = np.asarray(values, dtype=float)
    if len(array) <= most:
        return array
    size, longer = divmod(len(array), most)  # the first `longer` stretches have one value more
    border = longer * (size + 1)
    parts = array[:border].reshape(longer, size + 1), array[border:].reshape(most - longer, size)
    return np.concatenate([_medians(part) for part in parts])


def _medians(rows: Array) -> Array:
    """Of each row."""
    ordered = np.sort(rows, axis=1)
    n = rows.shape[1]
    return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2


def rising_p(values: Sequence[float] | Array) -> float:
    """Mann and Kendall's test, one-sided: how often n values in random order rise at least this steadily.

    Exact without ties; 1.0 below 3 values.
    """
    array = blocks(values)
    n, different = len(array), len(np.unique(array))
    if n < 3 or different == 1:
        return 1.0
    if different == n:
        return float(_wrong_pairs(n)[np.count_nonzero(np.triu(array[:, None] > array, 1))])
    from scipy.stats import kendalltau

    return float(kendalltau(np.arange(n), array, method="asymptotic", alternative="greater").pvalue)


@cache
def _wrong_pairs(n: int) -> Array:
    """The chance that n values in random order have at most 0, 1, ... pairs whose first is the larger.

    Value j goes before 0 to j - 1 of those that are there, each as likely (Kendall 1938). Made once for a length, of
    which there are at most `MOST_BLOCKS`: a log asks for it at every look.
    """
    orders = [1]
    for j in range(2, n + 1):
        up_to = list(itertools.accumulate(orders + [0] * (j - 1)))
        orders = [count - (up_to[i - j] if i >= j else 0) for i, count in enumerate(up_to)]
    return np.array([count / math.factorial(n) for count in itertools.accumulate(orders)])


def falling_p(values: Sequence[float] | Array) -> float:
    """`rising_p` of the values with their signs turned."""
    return rising_p(-np.asarray(values, dtype=float))


def slope(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Theil and Sen's slope: the median over all pairs of points; 0 where there is no pair."""
    xs, ys = blocks(x), blocks(y)
    right, up = xs[:, None] - xs, ys[:, None] - ys
    pairs = right > 0
    return median(up[pairs] / right[pairs]) if pairs.any() else 0.0


def shift(before: Sequence[float] | Array, after: Sequence[float] | Array, alpha: float) -> tuple[float, float, float]:
    """Hodges and Lehmann's shift from `before` to `after`: (estimate, low, high).

    The shift is below `low`, and above `high`, with probability `alpha` each (by Mann and Whitney's test); the bounds
    are infinite where too few values are there to give any.
    """
    first, second = blocks(before), blocks(after)
    pairs = np.sort((second[None, :] - first[:, None]).ravel())
    n, m = len(first), len(second)
    z = NORMAL.inv_cdf(1 - alpha)
    rank = math.floor(n * m / 2 - z * math.sqrt(n * m * (n + m + 1) / 12) - 0.5)
    if rank < 0:
        return median(pairs), -math.inf, math.inf
    return median(pairs), float(pairs[rank]), float(pairs[-1 - rank])


def paired_p(differences: Sequence[float] | Array) -> float:
    """Wilcoxon's signed-rank test, one-sided: how often differences of random sign are this far above 0."""
    array = np.asarray(differences, dtype=float)
    array = array[array != 0]
    if len(array) < 3:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(array, alternative="greater", method="exact").pvalue)


def fewer_p(few: int, many: int, n: int) -> float:
    """One-sided p of `few` successes of `n` against `many` of another `n` (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[few, n - few], [many, n - many]], alternative="less").pvalue)


def records_p(values: Sequence[float] | Array) -> tuple[int, float]:
    """How often the second half of a series goes above all before it, and how often n values in random order do so
    at least as many times. The chance that value i is a record is 1/i, each apart from the others (Renyi 1962)."""
    array = np.asarray(values, dtype=float)
    n, half = len(array), len(array) // 2
    if half < 2:
        return 0, 1.0
    best = np.maximum.accumulate(array)
    count = int((np.diff(best[half - 1 :]) > 0).sum())
    return count, _records(count, n, half)


@cache
def _records(least: int, n: int, after: int) -> float:
    """How often at least so many of n values after the first `after` are records."""
    from scipy.stats import poisson_binom

    return float(poisson_binom.sf(least - 1, 1 / np.arange(after + 1, n + 1)))
