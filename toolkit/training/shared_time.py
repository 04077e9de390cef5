"""How evenly ranks share updates, and what sharing them costs: measured in the run itself, told at its end."""

from __future__ import annotations

import collections
import statistics
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


class SharedTime:
    """What one rank measures: its real tokens of each update, and the seconds between its own part and the sum of all.

    A card's are those between two marks in its stream, read once it is past them, so that nothing waits for them.
    """

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda
        self.tokens, self.seconds = array("q"), array("f")
        self._begun: Any = None
        self._marks: collections.deque[tuple[Any, Any]] = collections.deque()

    def own_part_ends(self) -> None:
        """This rank has handed its part of an update to the card, or made it on the CPU."""
        self._begun = self._mark()

    def summed(self) -> None:
        """The update's gradients are summed over all ranks, or will be when the card comes to it."""
        ended = self._mark()
        if not self.cuda:
            self.seconds.append(ended - self._begun)
            return
        self._marks.append((self._begun, ended))
        while self._marks and self._marks[0][1].query():
            self._read_one()

    def read(self) -> tuple[list[int], list[float]]:
        """(tokens, seconds) of each update, waiting for the card."""
        while self._marks:
            self._marks[0][1].synchronize()
            self._read_one()
        return self.tokens.tolist(), self.seconds.tolist()

    def _read_one(self) -> None:
        begun, ended = self._marks.popleft()
        self.seconds.append(begun.elapsed_time(ended) / 1000)

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark


@dataclass(frozen=True, slots=True)
class SharedUpdates:
    """Updates as ranks shared them, each figure of the update in the middle but for `balance`, a mean.

    balance: a rank's tokens in the mean, over those of the one with most. update: seconds, with all that is in it.
    summing: seconds from the end of the part that took longest to the sum of gradients. waiting: seconds by which the
    rank that waits longest for that waits longer than the one that does least.
    """

    balance: float
    update: float
    summing: float
    waiting: float

    def line(self) -> str:
        """What the terminal says of it."""
        summing, waiting = (f"{1000 * part:.1f} ms ({part / self.update:.1%})" for part in (self.summing, self.waiting))
        even = f"tokens {self.balance:.1%} even"
        return f"{even}; of {self.update:.3f} s an update {summing} go into summing gradients, {waiting} into waiting"


def shared_updates(
    ranks: Sequence[tuple[Sequence[int], Sequence[float]]], update: Iterable[float]
) -> SharedUpdates | None:
    """What ranks have measured, each as `SharedTime.read` gives it, and the seconds of updates; None where none was."""
    times, whole = list(zip(*(seconds for _, seconds in ranks), strict=False)), list(update)
    tokens = list(zip(*(tokens for tokens, _ in ranks), strict=False))[: len(times)]
    if not times or not whole:
        return None
    return SharedUpdates(
        balance=statistics.fmean(sum(each) / (len(each) * max(each)) for each in tokens),
        update=statistics.median(whole),
        summing=statistics.median(map(min, times)),
        waiting=statistics.median(max(each) - min(each) for each in times),
    )
