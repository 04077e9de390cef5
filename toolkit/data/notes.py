"""What reading rows comes to besides chats: rows that can't be read, by cause, and what rows said that was not used."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import DataError, Problem, unbroken
from toolkit.words import counted

FIRST_PLACES = 5  # of each cause and finding that are named
MOST_CAUSES = 20  # that are listed
ALARM = "looks like"  # how the findings begin that should be read first
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_NUMBERS = re.compile(r"\d[\d,.]*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


class RowError(ValueError):
    """A row is not what its format asks for. Rows that fail alike have one `cause`, which names nothing of the row;
    left out, it is the message up to its first colon after the place, without numbers and quoted words."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause or cause_of(message)


def cause_of(message: str) -> str:
    """A message without what differs from row to row."""
    text = message.removeprefix("turn ")
    head, _, rest = text.partition(": ")
    text = rest if head.isdigit() and rest else text
    text = _QUOTED.sub("...", text.partition(": ")[0] if ": not " not in text else text.partition(": not ")[2])
    return _NUMBERS.sub("N", text)[:100]


@dataclass(slots=True)
class Cause:
    """Rows that fail alike: how many, and the first of them."""

    name: str
    rows: int = 0
    first: list[Problem] = field(default_factory=list)

    def line(self) -> Problem:
        """The first row's own message, and where others of the kind are."""
        head, *others = self.first
        if not others:
            return head
        more = self.rows - len(self.first)
        places = ", ".join(problem.where for problem in others) + (f" and {more:,} more" if more else "")
        return Problem(head.where, f"{head.message} [{counted(self.rows, 'row')} like this: also {places}]")


_UNUSED = "{}: key {} is not used"  # by what it stands on and its name
_COLUMN = re.compile(_UNUSED.format("rows", "(.+)"))


@dataclass(slots=True)
class Finding:
    """Something that rows say and that is not used, or read in a way worth knowing."""

    text: str
    times: int = 0
    rows: int = 0
    first: str = ""

    @property
    def column(self) -> str:
        """The column that is not used; empty where it is something else that was said."""
        return found[1] if (found := _COLUMN.fullmatch(self.text)) else ""

    def __str__(self) -> str:
        count = counted(self.rows, "row")
        times = f", {self.times:,} times" if self.times > self.rows else ""
        return unbroken(f"{self.first}: {self.text} [{count}{times}]")


class Reading:
    """What reading came to: all rows, those that can't be used by cause, and what good ones said that was not used.

    max_bad: the share of rows that may be bad, above which `stop` raises.
    """

    def __init__(self, max_bad: float = 0.0) -> None:
        self.max_bad = max_bad
        self.rows = 0
        self.bad = 0
        self.causes: dict[str, Cause] = {}
        self.places: set[str] = set()  # of all bad rows
        self.findings: dict[str, Finding] = {}

    def refuse(self, problem: Problem, cause: str = "") -> None:
        """Add a bad row by what is wrong with it."""
        self.bad += 1
        self.places.add(problem.where)
        cause = cause or cause_of(problem.message)
        known = self.causes.setdefault(cause, Cause(cause))
        known.rows += 1
        if len(known.first) < FIRST_PLACES:
            known.first.append(problem)

    def note(self, text: str, where: str, times: int = 1) -> None:
        """Add what one good row left unused."""
        known = self.findings.setdefault(text, Finding(text, first=where))
        known.times += times
        known.rows += 1

    @property
    def too_many(self) -> bool:
        """Whether more rows are bad than may be."""
        return self.bad > self.max_bad * self.rows

    def by_cause(self) -> list[Problem]:
        """A line a cause, the most frequent first."""
        causes = sorted(self.causes.values(), key=lambda cause: -cause.rows)
        lines = [cause.line() for cause in causes[:MOST_CAUSES]]
        if len(causes) > MOST_CAUSES:
            rest = sum(cause.rows for cause in causes[MOST_CAUSES:])
            lines.append(
                Problem("", f"and {counted(rest, 'row')} of {counted(len(causes) - MOST_CAUSES, 'other kind')}")
            )
        return lines

    def in_order(self) -> list[Finding]:
        """The findings, those first that hint at calls which were not read, then the most frequent."""
        return sorted(self.findings.values(), key=lambda found: (not found.text.startswith(ALARM), -found.rows))

    def summary(self) -> str:
        """How many of how many rows are bad."""
        share = self.bad / max(1, self.rows)
        return f"{self.bad:,} of {counted(self.rows, 'row')} can't be used ({share:.2%})"

    def advice(self) -> str:
        """What to do about more bad rows than may be."""
        share = self.bad / max(1, self.rows)
        enough = next((step for step in _SHARES if step >= share), None)
        it = "it" if self.bad == 1 else "them"
        ways = f"mend {it}" + (f", or leave {it} out with --set data.max_bad={enough:g}" if enough else "")
        return f"more than data.max_bad = {self.max_bad:g} allows: {ways}"

    def stop(self) -> None:
        """Raise `DataError` when more rows are bad than may be: a line a cause, then what to do."""
        if self.too_many:
            raise DataError([*self.by_cause(), Problem("", f"{self.summary()}, {self.advice()}")])


class Fields:
    """An object of a row that knows which of its keys were used.

    A key whose value is null counts as absent: files that came through Arrow have every key of every row.
    """

    def __init__(self, value: Mapping[str, Any], what: str) -> None:
        self._value = value
        self.what = what
        self._used: set[str] = set()

    def take(self, *names: str) -> Any:
        """The value of the one of these keys that is there, or None. `RowError` when two are and differ."""
        self._used.update(names)
        there = [name for name in names if name in self._value and self._value[name] is not None]
        if len(there) < 2:  # nearly always, and this is called for every key of every turn
            return self._value[there[0]] if there else None
        there = [name for name in there if self._value[name] not in ("", [], {})] or there[:1]
        first = self._value[there[0]]
        for other in there[1:]:
            if self._value[other] != first:
                raise RowError(
                    f"{self.what}: {there[0]} and {other} say different things; leave one of them",
                    cause="two keys for one thing that differ",
                )
        return first

    def lacks(self, names: frozenset[str]) -> bool:
        """Whether none of these keys is there."""
        return names.isdisjoint(self._value)

    def has(self, *names: str) -> bool:
        """Whether one of these keys is there with a value."""
        return any(self._value.get(name) is not None for name in names)

    def peek(self, name: str) -> Any:
        """The value of a key, which stays unused."""
        return self._value.get(name)

    def known(self, *names: str) -> None:
        """Keys that say nothing that is lost: ids, and what follows from the rest."""
        self._used.update(names)

    def unused(self) -> Iterator[tuple[str, Any]]:
        """What was never asked for, with its value."""
        for key, value in self._value.items():
            if key not in self._used and value is not None:
                yield str(key), value

    def nulls(self, *but: str) -> int:
        """How many keys are null, without those of `but`."""
        return sum(value is None and key not in but for key, value in self._value.items())

    def found(self) -> str:
        """Its keys, for messages."""
        return ", ".join(shown(key) for key in self._value) or "nothing"


Remarks = Counter[str]
"""What one row left unused: text and how often."""


def report_unused(fields: Fields, label: str, remarks: Remarks) -> None:
    """Remark on every key that was not used."""
    for key, _ in fields.unused():
        remarks[_UNUSED.format(label, shown(key))] += 1


def no_name(value: Any) -> str:
    """What is said of a name that is empty or no text."""
    return f"wanted text that is not empty, got {quoted(value)}"


def quoted(value: Any) -> str:
    """`shown`, in quotes where it is text and might be taken for a number."""
    return f'"{shown(value)}"' if isinstance(value, str) else shown(value)


def shown(value: Any, most: int = 60) -> str:
    """A piece of the row for a message: on one line, without control characters, shortened."""
    if isinstance(value, str):
        text = json.dumps(value[: 2 * most], ensure_ascii=False)[1:-1]
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, default=lambda other: f"<{type(other).__name__}>")
        except (ValueError, TypeError, RecursionError):
            text = f"<{type(value).__name__}>"
    return text if len(text) <= most else text[: most - 3] + "..."
