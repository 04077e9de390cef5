"""Evaluations in the terminal: rates by kind and by measure, and turns that flipped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from toolkit.evaluation.results import FRACTIONS, LABELS, LOWER_IS_BETTER, Comparison, Evaluation, Row, shown
from toolkit.evaluation.statistics import Paired, Rate
from toolkit.words import counted, short

if TYPE_CHECKING:
    from rich.console import Console

_RIGHT: dict[str, Any] = {"justify": "right", "no_wrap": True}
Columns = Sequence[tuple[str, Evaluation]]
Comparisons = Sequence[tuple[str, Comparison]]


def render(after: Evaluation, console: Console, before: Evaluation | None = None, samples: int = 3) -> None:
    """Print rates by kind and by measure, beside those of `before` and with some turns that flipped."""
    columns = [("right", after)] if before is None else [("before", before), ("after", after)]
    render_columns(columns, console, samples)


def render_columns(columns: Columns, console: Console, samples: int) -> None:
    """Print evaluations of the same chats side by side, the differences of the others from the first, and for each of
    those up to `samples` chats that became right and a few that became wrong."""
    comparisons = [(name, Comparison.of(columns[0][1], evaluation)) for name, evaluation in columns[1:]]
    console.print(_shares(columns, comparisons if len(comparisons) == 1 else []))
    if len(comparisons) > 1:
        console.print(_differences(columns[0][0], columns[-1][1], comparisons))
    console.print(_measures(columns))
    if answers := sum(row.kind == "answer" for row in columns[-1][1].rows):
        console.print(
            f"answer: {counted(answers, 'chat')} to be answered in words, right where no call is made; "
            "what the words say is not judged",
            highlight=False,
            soft_wrap=True,
        )
    for name, comparison in comparisons:
        paired = comparison.paired()
        label = "" if len(columns) == 2 else f"{name}: "
        console.print(
            f"{label}{paired.gained} of {paired.n} became right, {paired.lost} became wrong "
            f"(exact McNemar test: p = {paired.p_value:.2g})",
            highlight=False,
            markup=False,
        )
    for name, evaluation in columns:
        if line := evaluation.cut():
            console.print(line if len(columns) == 1 else f"{name}: {line}", highlight=False, markup=False)
    for name, comparison in comparisons if samples else ():
        _samples(console, comparison, samples, (columns[0][0], name))


def _shares(columns: Columns, comparisons: Comparisons) -> Table:
    """Right answers by kind, by split and by source where there are several, and overall; with two columns their
    difference as well."""
    of = columns[-1][1].of
    table = Table(title=f"{of[:1].upper()}{of[1:]}: right answers, with 95% intervals", title_justify="left")
    table.add_column("kind")
    for name, _ in columns:
        table.add_column(name, **_RIGHT)
    for _ in comparisons:
        table.add_column("difference", **_RIGHT)
    for label, group in _groups(columns[-1][1]):
        if group is None:
            table.add_section()
            continue
        cells = [_cell(_rate_of([row for row in evaluation.rows if group(row)])) for _, evaluation in columns]
        table.add_row(label, *cells, *(_difference(one.where(group).paired()) for _, one in comparisons))
    return table


def _differences(first: str, last: Evaluation, comparisons: Comparisons) -> Table:
    """Differences of several columns from the first, in percentage points."""
    table = Table(title=f"Differences from {first}, in points", title_justify="left")
    table.add_column("kind")
    for name, _ in comparisons:
        table.add_column(name, **_RIGHT)
    for label, group in _groups(last):
        if group is None:
            table.add_section()
            continue
        table.add_row(label, *(_difference(one.where(group).paired()) for _, one in comparisons))
    return table


def _groups(evaluation: Evaluation) -> Iterator[tuple[str, Callable[[Row], bool] | None]]:
    """What rows are counted under, in the order of a table; None where a section ends."""
    keys: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: row.kind),
        ("unseen ", lambda row: row.split),
        ("", lambda row: row.source),
    ]
    for position, (prefix, key) in enumerate(keys):
        values = [value for value in evaluation.by(key) if value]
        if position and len(values) < 2:
            continue
        for value in values:
            yield f"{prefix}{value}", functools.partial(_is, key, value)
        yield "", None
    yield "all", lambda row: True


def _is(key: Callable[[Row], str], value: str, row: Row) -> bool:
    return key(row) == value


def _measures(columns: Columns) -> Table:
    table = Table()
    table.add_column("measure")
    for name, _ in columns:
        table.add_column("share" if len(columns) == 1 else name, **_RIGHT)
    rates = [evaluation.rates() for _, evaluation in columns]
    for name in shown(rates):
        found = [one.get(name, Rate(0, 0)) for one in rates]
        cells = [_share(rate) if name in FRACTIONS else _cell(rate) for rate in found]
        table.add_row(LABELS[name] + (" (less is better)" if name in LOWER_IS_BETTER else ""), *cells)
    return table


def _rate_of(rows: list[Row]) -> Rate:
    return Rate.of(row.correct for row in rows)


def _cell(rate: Rate) -> str:
    if rate.share is None:
        return "none"
    low, high = rate.interval
    return f"{rate.hits:.0f}/{rate.n} {rate.share:4.0%} ({100 * low:.0f}-{100 * high:.0f})"


def _share(rate: Rate) -> str:
    return "none" if rate.share is None else f"{rate.share:.0%} over {rate.n}"


def _difference(paired: Paired) -> str:
    if paired.n == 0:
        return ""
    low, high = paired.interval
    return f"{100 * paired.difference:+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def _samples(console: Console, comparison: Comparison, samples: int, names: tuple[str, str]) -> None:
    gained, lost = comparison.flips(gained=True), comparison.flips(gained=False)
    shown = [("became right", pair) for pair in gained[:samples]]
    shown += [("became wrong", pair) for pair in lost[: max(1, samples // 3)]]
    width = max(len("expected"), *map(len, names)) + 1
    for what, (before, after) in shown:
        console.print(f"\n{what} ({after.kind}, {after.where})", style="bold")
        for label, text in (
            ("user", after.user),
            ("expected", after.expected),
            (names[0], before.generated),
            (names[1], after.generated),
        ):
            console.print(f"  {label:<{width}}{short(text)}", highlight=False, soft_wrap=True)
