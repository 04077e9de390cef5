"""The log reader: verdicts with their evidence, from a finished log or row by row while training goes on.

Statistical verdicts are looked for only now and then, and each look may spend a part of one small chance of a false
alarm (`toolkit.reports.rules.look`), so that reading along says no more than reading at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolkit.reports.log import Facts, Log
from toolkit.reports.rules import evaluation, instant, machine, training
from toolkit.reports.rules.look import LAST_LOOK, Look, Looks
from toolkit.reports.verdicts import Verdict, ordered


class Instant(Protocol):
    def __call__(self, log: Log, facts: Facts) -> Verdict | None: ...


class Statistical(Protocol):
    def __call__(self, log: Log, facts: Facts, look: Look) -> Verdict | None: ...


# topics that a rule's silence clears; the others keep what they said
INSTANT: tuple[tuple[str, Instant], ...] = (
    ("numbers", instant.broken),
    ("mask", instant.masked),
    ("start", instant.low_start),
    ("precision", instant.skipped),
    ("gradient", instant.spikes),
    ("cut", instant.cuts),
)
ON_TRAINING: tuple[tuple[str, Statistical], ...] = (
    ("progress", training.progress),
    ("rate", training.oscillation),
    ("speed", machine.throughput),
    ("memory", machine.memory),
    ("length", training.unfinished),
)
ON_EVALUATION: tuple[tuple[str, Statistical], ...] = (
    ("overfitting", evaluation.overfitting),
    ("generalisation", evaluation.gap),
    ("evaluation", evaluation.too_noisy),
)


@dataclass(slots=True)
class Reader:
    """Reads a log as it grows. `verdicts` is what stands now, worst first."""

    facts: Facts = field(default_factory=Facts)
    log: Log = field(default_factory=Log)
    _current: dict[str, Verdict] = field(default_factory=dict)
    _training_looks: Looks = field(default_factory=Looks)
    _evaluation_looks: Looks = field(default_factory=lambda: Looks(next_at=1))

    @property
    def verdicts(self) -> list[Verdict]:
        return ordered(list(self._current.values()))

    def feed(self, row: Mapping[str, Any]) -> list[Verdict]:
        """Take a row of metrics.jsonl; returns the verdicts that are new, or no longer what they were."""
        before = dict(self._current)
        self._take(row)
        self._glance()
        return self._changed(before)

    def read(self, rows: Iterable[Mapping[str, Any]], finished: bool) -> None:
        """Take all rows of a log; `finished` says that training is over. As `feed` for each, without its news."""
        rows, taken = list(rows), 0
        while taken < len(rows):
            before_look = self._training_looks.next_at - len(self.log.losses) - 1
            if before_look > 0:
                taken += self.log.extend(rows[taken : taken + before_look])
            if taken < len(rows):
                self._take(rows[taken])
                taken += 1
        self._glance()
        if finished:
            self.finish()

    def _glance(self) -> None:
        for topic, rule in INSTANT:
            self._put(topic, rule(self.log, self.facts))

    def _take(self, row: Mapping[str, Any]) -> None:
        """Add a row, and look where a look is due."""
        evaluations = len(self.log.evaluations)
        trained = self.log.add(row)
        n = len(self.log.losses)
        if not (trained and self._training_looks.due(n)) and len(self.log.evaluations) == evaluations:
            return
        self._glance()  # rules may ask what stands
        if trained and self._training_looks.due(n):
            self._look(ON_TRAINING, self._training_looks.take(n))
        if len(self.log.evaluations) > evaluations:
            self._look(ON_EVALUATION, self._evaluation_looks.take(len(self.log.evaluations)))

    def finish(self) -> list[Verdict]:
        """One last look, at the end of training; returns what is new."""
        before = dict(self._current)
        self._look(ON_TRAINING, LAST_LOOK, final=True)
        if self.log.evaluations:
            self._look(ON_EVALUATION, LAST_LOOK, final=True)
        return self._changed(before)

    def _look(self, rules: tuple[tuple[str, Statistical], ...], alpha: float, final: bool = False) -> None:
        for topic, rule in rules:
            held = frozenset(verdict.code for verdict in self._current.values())
            self._put(topic, rule(self.log, self.facts, Look(alpha, held, final)))

    def _put(self, topic: str, verdict: Verdict | None) -> None:
        if verdict is None:
            self._current.pop(topic, None)
        else:
            self._current[topic] = verdict

    def _changed(self, before: Mapping[str, Verdict]) -> list[Verdict]:
        """New verdicts, and those whose code or level changed; new numbers alone are no news."""
        news = []
        for topic, verdict in self._current.items():
            old = before.get(topic)
            if old is None or (old.code, old.level) != (verdict.code, verdict.level):
                news.append(verdict)
        return ordered(news)


def read(rows: Iterable[Mapping[str, Any]], facts: Facts | None = None, finished: bool = True) -> list[Verdict]:
    """The verdicts on a whole log, worst first; `finished` says that training is over."""
    reader = Reader(facts or Facts())
    reader.read(rows, finished)
    return reader.verdicts
