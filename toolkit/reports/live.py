"""Verdicts while training goes on: printed when they first appear or change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from toolkit.reports.log import Facts
from toolkit.reports.reading import Reader
from toolkit.reports.verdicts import Verdict
from toolkit.terminal import clean

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"stop": "bold red", "warning": "bold yellow", "note": "bold", "good": "bold green"}


def terminal_text(verdict: Verdict) -> Text:
    """A verdict for the terminal; its level is a word, which colour only repeats."""
    found = Text(clean(verdict.line))
    found.stylize(STYLES[verdict.level], 0, len(verdict.level))
    return found


class LiveReader:
    """Reads the rows of a run as they are written. `feed` is a listener of `MetricsWriter`."""

    def __init__(self, facts: Facts, console: Console) -> None:
        self.reader = Reader(facts)
        self.console = console

    def know(self, facts: Facts) -> None:
        """Take other facts, as when the number of updates is fitted to the time on the way."""
        self.reader.facts = facts

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what a resumed run wrote before, without a word."""
        for row in rows:
            self.reader.feed(row)

    def feed(self, row: Mapping[str, Any]) -> None:
        for verdict in self.reader.feed(row):
            self.console.print(terminal_text(verdict), soft_wrap=True)

    def finish(self) -> list[Verdict]:
        """Look once more, print what is new, and return what stands."""
        for verdict in self.reader.finish():
            self.console.print(terminal_text(verdict), soft_wrap=True)
        return self.reader.verdicts
