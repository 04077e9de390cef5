"""`toolkit bench compare A B`: what changed between two results files, variant by variant."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from toolkit.bench_results import Results
from toolkit.reports.bench import gib, number

NOTABLE = 0.10


@dataclass(frozen=True, slots=True)
class Difference:
    """One variant in both files. Memory and time are B over A less 1; None where either was not measured.

    `overlap`: the spreads of update time overlap, so the difference may be chance.
    """

    variant: str
    status: str
    memory: float | None
    seconds: float | None
    overlap: bool

    @property
    def notable(self) -> bool:
        """Memory or time differ by over 10%, or how it ended differs."""
        changed = (self.memory is not None and abs(self.memory) > NOTABLE) or (
            self.seconds is not None and abs(self.seconds) > NOTABLE and not self.overlap
        )
        return changed or "->" in self.status


def differences(a: Results, b: Results) -> list[Difference]:
    """Variants of both files, in A's order."""
    found = []
    for name, arm in a.arms.items():
        other = b.arms.get(name)
        if other is None:
            continue
        one, two = a.seconds(name), b.seconds(name)
        found.append(
            Difference(
                variant=name,
                status=arm.status if arm.status == other.status else f"{arm.status} -> {other.status}",
                memory=_ratio(a.peak(name), b.peak(name)),
                seconds=_ratio(one.median, two.median) if one and two else None,
                overlap=bool(one and two and one.low <= two.high and two.low <= one.high),
            )
        )
    return found


def _ratio(a: float | None, b: float | None) -> float | None:
    return b / a - 1 if a and b else None


def unlike(a: Results, b: Results) -> list[str]:
    """What else differs between the two runs, a line each."""
    lines = [
        f"{key}: {a.run.get(key)} -> {b.run.get(key)}"
        for key in ("model", "shape", "profile", "card", "chats_per_update", "trained_share")
        if a.run.get(key) != b.run.get(key)
    ]
    mine, theirs = a.run["versions"], b.run["versions"]
    lines += [
        f"{name}: {mine.get(name, 'none')} -> {theirs.get(name, 'none')}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    return lines


def show(a: Results, b: Results, console: Console) -> None:
    for line in unlike(a, b):
        console.print(line, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(("variant", "A GiB", "B GiB", "change", "A s", "B s", "change", "real tokens/s", "")):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for d in differences(a, b):
        one, two = a.seconds(d.variant), b.seconds(d.variant)
        table.add_row(
            d.variant,
            gib(a.peak(d.variant)),
            gib(b.peak(d.variant)),
            _percent(d.memory),
            f"{one.median:.3f}" if one else "",
            f"{two.median:.3f}" if two else "",
            _percent(d.seconds) + (" (within spread)" if d.overlap and d.seconds is not None else ""),
            f"{number(a.throughput(d.variant))} -> {number(b.throughput(d.variant))}",
            "over 10%" if d.notable else d.status if d.status != "measured" else "",
        )
    console.print(table)
    only = sorted(set(a.arms) ^ set(b.arms))
    if only:
        console.print(f"only in one of them: {', '.join(only)}", highlight=False, markup=False)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"
