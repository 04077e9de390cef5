"""Rows of `toolkit bench --quality`, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from toolkit.errors import RunError
from toolkit.records import read_jsonl

FILE = "quality.jsonl"
Status = Literal["reached", "ended", "time", "failed"]
Evaluation = tuple[float, int, float, float]


@dataclass(slots=True)
class Row:
    """What came of a run. `seconds`: from the command to the target, or to the run's end where it was not reached.

    status: reached; ended, without reaching it; time, stopped before; failed, with `error`. `update`, `right`: of the
    evaluation that reached the target, else of the last. `evaluations`: (seconds, update, share right, held-out loss).
    `minutes`: after which it would have been stopped.
    """

    key: str
    variant: str
    seed: int
    target: float
    status: Status
    seconds: float
    update: int
    right: float
    answers: int
    date: str
    card: str
    versions: dict[str, str]
    evaluations: list[Evaluation] = field(default_factory=list)
    error: str = ""
    minutes: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs that are compared have in common, besides what is in their keys."""

    card: str
    versions: dict[str, str]

    def __contains__(self, row: Row) -> bool:
        return (row.card, row.versions) == (self.card, self.versions)

    def others(self, rows: Sequence[Row]) -> str:
        """A line on rows of other cards and versions, with what they have in place of what is here."""
        names = dict.fromkeys(name for row in rows for name in (*row.versions, *self.versions))
        parts = [_instead("card", [row.card for row in rows], self.card)]
        for name in names:
            parts.append(_instead(name, [row.versions.get(name, "none") for row in rows], self.versions.get(name)))
        return "; ".join(filter(None, parts))


def _instead(name: str, found: Sequence[str], here: str | None) -> str:
    other = [value for value in dict.fromkeys(found) if value != (here or "none")]
    return f"{name} {', '.join(other)}, here {here or 'none'}" if other else ""


def saved(out: Path) -> list[Row]:
    """All rows of OUT/quality.jsonl."""
    path = out / FILE
    rows = []
    for line in read_jsonl(path) if path.is_file() else ():
        try:
            rows.append(Row(**line))
        except TypeError:
            raise RunError(f"{path}: not rows of `toolkit bench --quality`; name another folder with --out") from None
    return rows


def kept(rows: Sequence[Row], machine: Machine, minutes: float = 0.0) -> dict[str, Row]:
    """The rows of this machine by key, but for those of runs that are to be made again: failed ones, and those that
    were stopped when they had had fewer than `minutes`."""
    return {
        row.key: row
        for row in rows
        if row in machine and row.status != "failed" and not (row.status == "time" and row.minutes < minutes)
    }


def told(row: Row, out: Path) -> str:
    """A line on what came of a run."""
    match row.status:
        case "reached":
            return f"{row.right:.0%} right after {row.seconds:.1f} s, update {row.update}"
        case "time":
            return f"stopped after {row.seconds:.1f} s at {row.right:.0%} right, update {row.update}"
        case "ended":
            return f"ended after {row.seconds:.1f} s with {row.right:.0%} right"
        case _:
            return f"failed: {row.error} (logs in {out / 'logs'})"


def score(rows: Sequence[Row]) -> float:
    """Mean seconds of a variant's runs without the best and the worst; of fewer than three, of all. A run that did not
    get there is the worst; inf where it would count."""
    seconds = sorted(row.seconds if row.status == "reached" else math.inf for row in rows)
    counting = seconds[1:-1] if len(seconds) >= 3 else seconds
    return sum(counting) / len(counting) if counting else math.inf


def show(rows: Sequence[Row], console: Console) -> None:
    """A line a variant, the fastest first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.variant, []).append(row)
    scores = {name: score(group) for name, group in groups.items()}
    fastest = min(scores.values(), default=math.inf)
    table = Table(box=None, pad_edge=False)
    for heading in ("way to train", "reached", "seconds", "of each seed", "times the fastest", "updates"):
        table.add_column(heading, justify="left" if heading in ("way to train", "of each seed") else "right")
    for name in sorted(groups, key=lambda name: (scores[name], name)):
        group, value = groups[name], scores[name]
        hits = [row for row in group if row.status == "reached"]
        known = math.isfinite(value)
        table.add_row(
            name,
            f"{len(hits)} of {len(group)}",
            f"{value:.1f}" if known else "-",
            " ".join(f"{row.seconds:.0f}" if row.status == "reached" else row.status for row in group),
            f"{value / fastest:.2f}" if known else "-",
            str(round(sum(row.update for row in hits) / len(hits))) if hits else "-",
        )
    console.print(table)
    console.print(
        f"from the command to {rows[0].target:.0%} of {rows[0].answers} held-out answers right, evaluations included; "
        "the mean leaves out the best and the worst seed",
        highlight=False,
        soft_wrap=True,
    )
