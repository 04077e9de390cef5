"""Evaluations in the terminal: rates by kind and by measure, and turns that flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from toolkit.evaluation.results import FRACTIONS, LABELS, LOWER_IS_BETTER, Comparison, Evaluation, Row
from toolkit.evaluation.statistics import Paired, Rate

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 160  # characters of a text in a sample


def render(after: Evaluation, console: Console, before: Evaluation | None, samples: int) -> None:
    """Print `after`, beside `before` where there is one."""
    comparison = Comparison.of(before, after) if before is not None else None
    table = Table(title="Held-out chats: right answers, with 95% intervals", title_justify="left")
    table.add_column("kind")
    for name in ("before", "after", "difference") if before is not None else ("right",):
        table.add_column(name, justify="right", no_wrap=True)
    kinds = after.by(lambda row: row.kind)
    for kind, rows in kinds.items():
        paired = comparison.of_kind(kind).paired() if comparison is not None else None
        _line(table, kind, _rate(before, kind), _rate_of(rows), paired)
    table.add_section()
    overall = comparison.paired() if comparison is not None else None
    _line(table, "all", _rate(before), _rate_of(after.rows), overall)
    console.print(table)
    console.print(_measures(before, after))
    if overall is not None:
        console.print(
            f"{overall.gained} of {overall.n} became right, {overall.lost} became wrong "
            f"(exact McNemar test: p = {overall.p_value:.2g})",
            highlight=False,
        )
    unfinished = sum(not row.stopped for row in after.rows)
    if unfinished:
        console.print(f"{unfinished} of {len(after.rows)} answers were cut at the token limit", highlight=False)
    if comparison is not None and samples:
        _samples(console, comparison, samples)


def _measures(before: Evaluation | None, after: Evaluation) -> Table:
    table = Table()
    table.add_column("measure")
    for name in ("before", "after") if before is not None else ("share",):
        table.add_column(name, justify="right", no_wrap=True)
    rates = after.rates()
    earlier = before.rates() if before is not None else {}
    for name in (name for name in LABELS if name in rates or name in earlier):
        found = [earlier.get(name, Rate(0, 0))] if before is not None else []
        found.append(rates.get(name, Rate(0, 0)))
        cells = [_share(rate) if name in FRACTIONS else _cell(rate) for rate in found]
        table.add_row(LABELS[name] + (" (less is better)" if name in LOWER_IS_BETTER else ""), *cells)
    return table


def _line(table: Table, label: str, before: Rate | None, after: Rate, paired: Paired | None) -> None:
    cells = [label]
    if before is not None:
        cells.append(_cell(before))
    cells.append(_cell(after))
    if before is not None:
        cells.append(_difference(paired))
    table.add_row(*cells)


def _rate(evaluation: Evaluation | None, kind: str | None = None) -> Rate | None:
    if evaluation is None:
        return None
    return _rate_of([row for row in evaluation.rows if kind is None or row.kind == kind])


def _rate_of(rows: list[Row]) -> Rate:
    return Rate.of(row.correct for row in rows)


def _cell(rate: Rate) -> str:
    if rate.share is None:
        return "none"
    low, high = rate.interval
    return f"{rate.hits:.0f}/{rate.n} {rate.share:4.0%} ({100 * low:.0f}-{100 * high:.0f})"


def _share(rate: Rate) -> str:
    return "none" if rate.share is None else f"{rate.share:.0%} over {rate.n}"


def _difference(paired: Paired | None) -> str:
    if paired is None or paired.n == 0:
        return ""
    low, high = paired.interval
    return f"{100 * paired.difference:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def _samples(console: Console, comparison: Comparison, samples: int) -> None:
    gained, lost = comparison.flips(gained=True), comparison.flips(gained=False)
    shown = [("became right", pair) for pair in gained[:samples]]
    shown += [("became wrong", pair) for pair in lost[: max(1, samples // 3)]]
    for what, (before, after) in shown:
        console.print(f"\n[bold]{what}[/bold] ({after.kind}, {escape(after.where)})", highlight=False)
        for label, text in (
            ("user", after.user),
            ("expected", after.expected),
            ("before", before.generated),
            ("after", after.generated),
        ):
            console.print(f"  {label:<9}{escape(_short(text))}", highlight=False, soft_wrap=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
