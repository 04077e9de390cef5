"""What the log reader says: a verdict, its evidence, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["stop", "warning", "note", "good"]
LEVELS: tuple[Level, ...] = ("stop", "warning", "note", "good")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that a log shows.

    topic: what it is about; a topic has one verdict at a time. code: which verdict, stable for scripts.
    title: the verdict in one sentence. evidence: the numbers it rests on. advice: what to try, with the recipe's keys;
    empty where there is nothing to do. update: where in training it was seen.
    """

    topic: str
    code: str
    level: Level
    title: str
    evidence: str
    advice: str = ""
    update: int = 0

    @property
    def line(self) -> str:
        """For the terminal: `warning  TITLE (EVIDENCE). Try: ADVICE`."""
        tried = f" Try: {self.advice}." if self.advice else ""
        return f"{self.level:8} {self.title} ({self.evidence}).{tried}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ordered(verdicts: list[Verdict]) -> list[Verdict]:
    """Worst first, in the order found within a level."""
    return sorted(verdicts, key=lambda verdict: LEVELS.index(verdict.level))
