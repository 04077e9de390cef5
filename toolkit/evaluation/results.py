"""Evaluations: their rows, rates by kind, split and source, files and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit import jsons
from toolkit.chats import BUILTIN, KINDS, TEST_SET
from toolkit.errors import DataError, Problem
from toolkit.evaluation.statistics import Paired, Rate
from toolkit.files import write_text
from toolkit.hashes import sha256_of_text
from toolkit.manifest import CHECKSUM
from toolkit.words import counted

if TYPE_CHECKING:
    pass

T = TypeVar("T")
ORDER = (*KINDS[:-1], "answer", "other")
# What the terminal shows beside the kinds; abstained, clarified and refused are the kinds' own rows there.
LABELS = {
    "has_call": "makes a call",
    "valid_json": "calls are valid JSON",
    "in_format": "calls are in the format",
    "schema_valid": "calls fit the schema",
    "name_correct": "right tools",
    "argument_recall": "arguments found",
    "argument_precision": "arguments right",
    "exact": "exact calls",
    "exact_but_case": "exact but for case and spaces",
    "over_refusal": "over-refusals",
    "invented_tool": "invented tools",
    "state": "final state as expected",
    "calls": "calls in expected order",
    "in_time": "done in the step limit",
}
# what goes into metrics.jsonl beside eval_loss, where it applies, and the measure that it is
LOGGED = {
    "eval_calls": "correct",
    "eval_exact": "exact",
    "eval_abstained": "abstained",
    "eval_clarified": "clarified",
    "eval_refused": "refused",
    "eval_over_refusal": "over_refusal",
}
SETS = {BUILTIN: "development set", TEST_SET: "test set"}  # what the built-in chats' sources are called
LOWER_IS_BETTER = ("over_refusal", "invented_tool")
FRACTIONS = ("argument_recall", "argument_precision")


@dataclass(frozen=True, slots=True)
class Row:
    """One generated turn (or, in executed evaluation, one whole chat).

    where, turn: the chat's place and the assistant turn's index. kind, split, source: what it is counted under.
    user: the last user text before the turn. expected, generated: texts; calls are {"name", "arguments"} objects.
    scores: measures by name, None where one does not apply. new_tokens, stopped: length, and whether the model ended
    its turn by itself.
    """

    where: str
    turn: int
    kind: str
    split: str
    source: str
    user: str
    expected: str
    generated: str
    expected_calls: list[dict[str, Any]]
    generated_calls: list[dict[str, Any]]
    problems: list[str]
    scores: dict[str, bool | float | None]
    new_tokens: int = 0
    stopped: bool = True

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells a turn from all others; two splits may number their chats alike."""
        return self.where, self.split, self.user, self.turn

    @property
    def correct(self) -> bool:
        return bool(self.scores["correct"])


@dataclass(slots=True)
class Evaluation:
    """Scored turns, and the settings they were made with."""

    rows: list[Row]
    settings: dict[str, Any] = field(default_factory=dict)

    def rates(self, rows: Sequence[Row] | None = None) -> dict[str, Rate]:
        """The rate of every measure over `rows` (all by default), measures that apply nowhere left out."""
        rows = self.rows if rows is None else rows
        names = dict.fromkeys(name for row in rows for name in row.scores)
        rates = {name: Rate.of(row.scores.get(name) for row in rows) for name in names}
        return {name: rate for name, rate in rates.items() if rate.n}

    def by(self, key: Callable[[Row], str]) -> dict[str, list[Row]]:
        """Rows by kind, split or source; kinds in their usual order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(key(row), []).append(row)
        rank = {name: index for index, name in enumerate(ORDER)}
        return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))

    @property
    def of(self) -> str:
        """What the rows are of: "test set" or "development set" where all are, else "held-out chats"."""
        sources = {row.source for row in self.rows}
        return SETS.get(sources.pop(), "held-out chats") if len(sources) == 1 else "held-out chats"

    def cut(self) -> str:
        """A line on the answers that the token limit cut, and how many it kept from being right: the calls expected
        are longer than all that was written. Empty when none was cut."""
        cut = [row for row in self.rows if not row.stopped]
        if not cut:
            return ""
        # executed chats are whole conversations, whose lengths say nothing about one answer
        single = [] if self.settings.get("executed") else cut
        longer = sum(bool(row.expected_calls) and len(row.expected) > len(row.generated) for row in single)
        limit = self.settings.get("max_new_tokens")
        found = f"{len(cut)} of {counted(len(self.rows), 'answer')} {'was' if len(cut) == 1 else 'were'} cut at "
        what = self.settings.get("limit_of", "eval.max_new_tokens")
        found += "the token limit" if limit is None else f"{what} = {limit}"
        return f"{found}; the calls expected of {longer} are longer, so raise it" if longer else found

    def summary(self) -> dict[str, Any]:
        """Rates as JSON values: {"turns", "settings", "overall": {measure: {"hits", "n", "share", "low", "high"}},
        "by_kind": {kind: {measure: ...}}, "by_split", "by_source", "stopped", "new_tokens"}."""

        def rates(rows: Sequence[Row]) -> dict[str, Any]:
            return {name: rate.as_dict() for name, rate in self.rates(rows).items()}

        return {
            "turns": len(self.rows),
            "settings": self.settings,
            "overall": rates(self.rows),
            "by_kind": {kind: rates(rows) for kind, rows in self.by(lambda row: row.kind).items()},
            "by_split": {split: rates(rows) for split, rows in self.by(lambda row: row.split).items()},
            "by_source": {source: rates(rows) for source, rows in self.by(lambda row: row.source).items()},
            "stopped": Rate.of(row.stopped for row in self.rows).as_dict(),
            "new_tokens": sum(row.new_tokens for row in self.rows),
        }

    def save(self, path: Path) -> None:
        """Write JSON lines, whole or not at all: the settings and a checksum first, then a row a line."""
        # ASCII: what a model wrote may not be valid Unicode
        lines = "".join(json.dumps(asdict(row)) + "\n" for row in self.rows)
        head = {"evaluation": self.settings, CHECKSUM: _checksum(self.settings, lines)}
        write_text(path, json.dumps(head) + "\n" + lines, durable=True)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote. Raises `DataError` with the line when the file is something else, or was changed."""
        try:
            head, *lines = path.read_bytes().decode("ascii", "replace").removesuffix("\n").split("\n")
        except OSError as error:
            raise DataError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from None
        rows: list[Row] = []
        settings: dict[str, Any] = {}
        checksum = None
        for number, line in enumerate([head, *lines], 1):
            try:
                value = jsons.loads(line)
                if number == 1:
                    settings, checksum = dict(value["evaluation"]), value.get(CHECKSUM)
                else:
                    rows.append(Row(**value))
                    rows[-1].scores["correct"]
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise DataError(Problem(f"{path}:{number}", f"not a line of a saved evaluation: {error}")) from error
        if checksum is not None and checksum != _checksum(settings, "".join(line + "\n" for line in lines)):
            raise DataError(f"{path}: changed since it was written (its checksum is of something else)")
        return cls(rows, settings)


def _checksum(settings: dict[str, Any], lines: str) -> str:
    plain = json.dumps(json.loads(json.dumps(settings)), sort_keys=True)
    return sha256_of_text(f"{plain}\n{lines}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations' rows of the same turns, in the order of the second."""

    pairs: list[tuple[Row, Row]]

    @classmethod
    def of(cls, before: Evaluation, after: Evaluation) -> Comparison:
        """Pair rows by chat and turn. Raises `DataError` when they have none in common."""
        known = {row.key: row for row in before.rows}
        pairs = [(known[row.key], row) for row in after.rows if row.key in known]
        if not pairs and after.rows:
            raise DataError("the two evaluations have no chat in common, so they can't be compared")
        return cls(pairs)

    def of_kind(self, kind: str) -> Comparison:
        return self.where(lambda row: row.kind == kind)

    def where(self, wanted: Callable[[Row], bool]) -> Comparison:
        """The pairs whose second row is one that is wanted."""
        return Comparison([pair for pair in self.pairs if wanted(pair[1])])

    def paired(self, measure: str = "correct") -> Paired:
        """Flips of a yes/no measure, over the turns where it applies on both sides."""
        both = [(b.scores.get(measure), a.scores.get(measure)) for b, a in self.pairs]
        known = [(b, a) for b, a in both if isinstance(b, bool) and isinstance(a, bool)]
        return Paired.of([b for b, _ in known], [a for _, a in known])

    def flips(self, gained: bool) -> list[tuple[Row, Row]]:
        """Turns that became right (`gained`) or wrong, kinds in turn so that the first few show several."""
        found = [(b, a) for b, a in self.pairs if b.correct != a.correct and a.correct == gained]
        return in_turn(found, lambda pair: pair[1].kind)


def shown(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures that a table has rows for, in the order of `LABELS`, given the rates of each column by measure."""
    hidden = repeated(columns)
    return [name for name in LABELS if name not in hidden and any(name in rates for rates in columns)]


def repeated(columns: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The measures that would only say again what another says: `exact_but_case`, unless it differs from `exact` in
    some column. A column of an older version may lack it."""
    differs = any("exact_but_case" in rates and rates["exact_but_case"] != rates.get("exact") for rates in columns)
    return () if differs else ("exact_but_case",)


def in_turn(items: Iterable[T], kind: Callable[[T], str]) -> list[T]:
    """The items, one of each kind after the other, so that the first few show several kinds."""
    by_kind: dict[str, list[T]] = {}
    for item in items:
        by_kind.setdefault(kind(item), []).append(item)
    return [item for row in zip_longest(*by_kind.values()) for item in row if item is not None]
