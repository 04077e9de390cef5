"""Counts with 95% intervals, and paired comparison of two evaluations of the same turns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n`. For fractional scores (argument recall) hits is their sum and the interval is approximate."""

    hits: float
    n: int

    @classmethod
    def of(cls, values: Iterable[bool | float | None]) -> Rate:
        """Of the values that apply: None is left out."""
        known = [float(value) for value in values if value is not None]
        return cls(math.fsum(known), len(known))

    @property
    def share(self) -> float | None:
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval; (0, 1) where nothing was counted."""
        return wilson(self.hits, self.n)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval
        hits = int(self.hits) if self.hits == int(self.hits) else self.hits
        return {"hits": hits, "n": self.n, "share": self.share, "low": low, "high": high}


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95% for `hits` of `n`; as scipy's `binomtest`, which takes no fractional hits."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # The ends are exact where all or nothing hit; rounding must not move them.
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == n else min(1.0, centre + half))


@dataclass(frozen=True, slots=True)
class Paired:
    """Two outcomes of the same `n` turns: `gained` became right, `lost` became wrong."""

    n: int
    gained: int
    lost: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Paired:
        pairs = list(zip(before, after, strict=True))
        return cls(len(pairs), sum(b < a for b, a in pairs), sum(b > a for b, a in pairs))

    @property
    def difference(self) -> float:
        """Share right after minus share right before."""
        return (self.gained - self.lost) / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the difference: Wald's with one flip added each way (Bonett and Price 2012)."""
        if self.n == 0:
            return -1.0, 1.0
        up, down = (self.gained + 1) / (self.n + 2), (self.lost + 1) / (self.n + 2)
        half = Z95 * math.sqrt((up + down - (up - down) ** 2) / (self.n + 2))
        return max(-1.0, up - down - half), min(1.0, up - down + half)

    @property
    def p_value(self) -> float:
        """Exact McNemar test: how likely flips at least this one-sided are, if both ways are equally likely."""
        if not self.gained + self.lost:
            return 1.0
        from scipy.stats import binomtest  # a second to import, and only a comparison needs it

        return float(binomtest(self.gained, self.gained + self.lost).pvalue)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "n": self.n,
            "gained": self.gained,
            "lost": self.lost,
            "difference": self.difference,
            "low": low,
            "high": high,
            "p_value": self.p_value,
        }
