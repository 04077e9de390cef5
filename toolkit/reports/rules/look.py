"""One look at a log: how much of the allowed false alarms it may spend, and what was seen before."""

from __future__ import annotations

import math
from dataclasses import dataclass

FALSE_ALARM = 0.01  # of each statistical verdict, over all looks of a whole run
LAST_LOOK = FALSE_ALARM / 2


@dataclass(frozen=True, slots=True)
class Look:
    """alpha: chance of a false alarm at this look. held: codes that stand already, so need no new proof of being more
    than noise. final: training is over."""

    alpha: float
    held: frozenset[str] = frozenset()
    final: bool = False


@dataclass(slots=True)
class Looks:
    """When to look again as values come in, so that looking often raises no false alarms.

    Looks come when the log has grown by a quarter. The k-th may spend half of `FALSE_ALARM` / (k (k + 1)), and the
    last one, after training, the other half; all of them together then spend no more than `FALSE_ALARM`, whatever the
    run's length (the union bound). That holds for noise that is independent from row to row, as it is of chats in
    random order; the recorded runs' rows are correlated by about 0.1, and at 0.3 false alarms are 2%.
    """

    taken: int = 0
    next_at: int = 8

    def due(self, n: int) -> bool:
        return n >= self.next_at

    def take(self, n: int) -> float:
        """Note that a look was taken at n values; returns its share of the false alarms."""
        self.taken += 1
        self.next_at = n + max(1, math.ceil(n / 4))
        return FALSE_ALARM / 2 / (self.taken * (self.taken + 1))
