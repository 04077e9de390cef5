"""`toolkit data check`: what is in the data, what is wrong with it, and what training would see of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from toolkit import models
from toolkit.cache import cache_root
from toolkit.chats import KINDS, Chat
from toolkit.data.held_out import Part, parts_of
from toolkit.data.keys import table_key
from toolkit.data.notes import Reading
from toolkit.data.parts import chat_hash, few_held_out, many_held_out
from toolkit.data.pipeline import Settings
from toolkit.data.rows import TEXT_ROLES
from toolkit.data.sources import MOST_SHOWN, load_chats
from toolkit.data.table import TokenTable, find, refuse_bad, refuse_dropped
from toolkit.data.tablefile import write
from toolkit.data.violations import violations
from toolkit.errors import DataError, ModelError, Problem
from toolkit.files import making_folder
from toolkit.terminal import one_line
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.data.render import Renderer
    from toolkit.recipe.load import LoadedRecipe
    from toolkit.recipe.schema import Recipe

_BINS = 12
_PARTS: tuple[Part, Part] = ("train", "eval")
_OTHER_KINDS = [kind for kind in KINDS if kind not in ("refuse", "other")]
_BAR = 40


@dataclass(slots=True)
class PartReport:
    """What training or evaluation would see: the table's meta, and its rows counted by length in tokens."""

    meta: dict[str, Any]
    edges: list[int]
    counts: list[int]


@dataclass(slots=True)
class CheckReport:
    """Everything that `toolkit data check` found.

    `readings` are what reading the training and the held-out sources came to: bad rows by cause, and what rows say that
    is not used. `unrendered` are chats that the chat template or the mask refuses, `violations` calls that break their
    tool's schema, `duplicates` chats that stand in the data before, `leaked` held-out chats that are trained on too,
    `limits` what the recipe's own limits refuse (data.max_bad among them). `untrained` counts answers that the data
    asks not to train, `others_calling` chats with calls whose rows name no kind. `held_out` is what there is to say of
    how many chats are held out.
    """

    chats: int = 0
    untrained: int = 0
    held_out: str = ""
    kinds: Counter[str] = field(default_factory=Counter)
    others_calling: int = 0
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    readings: list[Reading] = field(default_factory=list)
    unrendered: list[Problem] = field(default_factory=list)
    unrendered_rows: int = 0
    violations: list[Problem] = field(default_factory=list)
    duplicates: list[Problem] = field(default_factory=list)
    leaked: list[Problem] = field(default_factory=list)
    limits: list[Problem] = field(default_factory=list)
    parts: dict[str, PartReport] = field(default_factory=dict)
    not_tokenised: str = ""  # why, when the model's tokenizer could not be had

    @property
    def bad(self) -> list[Problem]:
        """The bad rows, a line a cause."""
        return [line for reading in self.readings for line in reading.by_cause()] + self.unrendered

    @property
    def findings(self) -> list[str]:
        """What rows say that is not used, a line each with how often and where first."""
        return [str(finding) for reading in self.readings for finding in reading.in_order()]

    @property
    def ok(self) -> bool:
        """Whether the data can be trained on as it is, as far as it was looked at. Duplicates alone are no fault:
        weights make them too; nor is what is not used, but it is worth a look."""
        return not (self.violations or self.leaked or self.limits)

    @property
    def complete(self) -> bool:
        """Whether all was looked at: without the model's tokenizer, lengths and cuts are not known."""
        return not self.not_tokenised

    def render(self, console: Console) -> None:
        """Print the report."""
        if self.chats:
            _print_counts(self, console)
        for name, part in self.parts.items():
            _print_part(self, name, part, console)
        if self.held_out:
            console.print(f"\n{self.held_out}", soft_wrap=True)
        findings = self.findings
        for title, lines in (
            ("said by rows and not used, or read in a way worth knowing", findings),
            ("duplicates", self.duplicates),
            ("bad rows, by cause", self.bad),
            ("calls that break their tool's schema", self.violations),
            ("held-out chats that are trained on too", self.leaked),
            ("beyond the recipe's limits", self.limits),
        ):
            _print_lines(title, list(map(str, lines)), console)
        if self.not_tokenised:
            text = f"not tokenised, so lengths and cuts are unknown: {one_line(self.not_tokenised)}"
            console.print(f"\n{text}", markup=False, highlight=False, soft_wrap=True)
        told = "data not ok" if not self.ok else "data ok" if self.complete else "data checked in part"
        style = "bold green" if told == "data ok" else "bold red"
        left_out = sum(reading.bad for reading in self.readings) + self.unrendered_rows
        if told == "data ok" and left_out:
            told += f", without {counted(left_out, 'bad row')}"
        if told != "data not ok" and findings:
            told += f"; {counted(len(findings), 'finding')} above, worth a look"
        console.print(told, style=style)


def check(loaded: LoadedRecipe) -> CheckReport:
    """Read all chats of a recipe, check them and tokenise them. The token table is kept when nothing is wrong.

    Raises `DataError` only for what stops reading: a missing or unreadable source, or a template that can't be used.
    """
    recipe = loaded.recipe
    report = CheckReport(readings=[Reading(recipe.data.max_bad), Reading(recipe.data.max_bad)])
    trained: dict[int, str] = {}
    for chat in load_chats(recipe.data.sources, report.readings[0]):
        report.chats += 1
        report.kinds[chat.kind] += 1
        report.others_calling += chat.kind == "other" and any(turn.tool_calls for turn in chat.turns)
        report.sources[chat.source, str(chat.meta.get("format", "builtin"))] += 1
        report.untrained += sum(not turn.trained for turn in chat.turns)
        report.violations += violations(chat)
        before = trained.setdefault(chat_hash(chat), chat.where)
        if before != chat.where:
            report.duplicates.append(Problem(chat.where, f"the same chat as {before}"))
    report.leaked = _leaked(load_chats(recipe.eval.sources, report.readings[1]), trained)
    report.limits += [
        Problem("", f"{reading.summary()}, {reading.advice()}") for reading in report.readings if reading.too_many
    ]
    if not report.chats:
        report.not_tokenised = "no chat could be read"
        return report
    try:
        folder = models.resolve(recipe.model, weights=False)
    except ModelError as error:
        report.not_tokenised = "; ".join(str(loaded.place(problem)) for problem in error.problems)
    else:
        renderer = cache(Settings.of(recipe, folder).renderer)  # one for both parts, and none where both are kept
        for part in parts_of(recipe):
            _tokenise(recipe, folder, part, report, renderer)
        left, taken = (report.parts[part].meta["chats"] if part in report.parts else 0 for part in _PARTS)
        if not report.limits:  # else chats may lack that are there, and are not held out
            report.held_out = report.held_out or many_held_out(recipe, left, taken)
    return report


def _leaked(held_out: Iterable[Chat], trained: dict[int, str]) -> list[Problem]:
    return [
        Problem(chat.where, f"held out, but the same chat is trained on: {trained[found]}")
        for chat in held_out
        if (found := chat_hash(chat)) in trained
    ]


def _tokenise(recipe: Recipe, folder: Path, part: Part, report: CheckReport, renderer: Callable[[], Renderer]) -> None:
    table = find(recipe, folder, part)
    if table is not None:
        _describe(recipe, table, part, report)
        return
    key = table_key(recipe, folder, part)
    place = cache_root() / "tables" / key
    reading = Reading(recipe.data.max_bad)
    with making_folder(place) as scratch:
        made = scratch / key
        write(recipe, folder, part, made, key=key, reading=reading, renderer=renderer)
        _describe(recipe, TokenTable(made), part, report)
        if not reading.too_many:
            with contextlib.suppress(OSError):  # another process has made it meanwhile
                made.rename(place)


def _describe(recipe: Recipe, table: TokenTable, part: str, report: CheckReport) -> None:
    if part == "eval":
        report.held_out = few_held_out(recipe, table.n_chats)
    if table.n_rows:
        report.parts[part] = PartReport(table.meta, *table.length_histogram(_BINS))
    report.unrendered_rows += table.meta.get("unrendered_rows", 0)
    report.unrendered += [Problem(where, message) for where, message in table.meta.get("unrendered", ())]
    for refuse in (refuse_bad, refuse_dropped):
        try:
            refuse(recipe, table.meta)
        except DataError as error:
            known = {problem.message for problem in [*report.bad, *report.limits]}
            report.limits += [problem for problem in error.problems if problem.message not in known]


def _print_counts(report: CheckReport, console: Console) -> None:
    kinds = Table(title="chats by kind", title_justify="left")
    kinds.add_column("kind")
    kinds.add_column("chats", justify="right")
    kinds.add_column("share", justify="right")
    for kind in KINDS:
        if report.kinds[kind]:
            kinds.add_row(kind, f"{report.kinds[kind]:,}", f"{report.kinds[kind] / report.chats:.1%}")
    kinds.add_row("all", f"{report.chats:,}", "")
    console.print(kinds)
    if others := report.kinds["other"]:
        console.print(
            f"other: {counted(others, 'chat')} whose rows name no kind, {report.others_calling:,} of them with calls. "
            f'A row may say "kind": "refuse" (or {", ".join(_OTHER_KINDS)})'
            ", by which answers are judged and counted: docs/data-formats.md",
            soft_wrap=True,
        )
    sources = Table(title="chats by source", title_justify="left")
    sources.add_column("source", overflow="fold")
    sources.add_column("format")
    sources.add_column("chats", justify="right")
    for (source, found), count in report.sources.items():
        sources.add_row(one_line(source), found, f"{count:,}")
    console.print(sources)


def _print_part(report: CheckReport, name: str, part: PartReport, console: Console) -> None:
    meta = part.meta
    console.print(
        f"\n{name}: {counted(meta['chats'], 'chat')}, {counted(meta['rows'], 'row')}, "
        f"{counted(meta['tokens'], 'token')}, {meta['share_trained']:.1%} trained, "
        f"{meta['tokens'] / meta['rows']:.0f} a row; "
        f"longest {meta['longest_row']:,} ({one_line(meta['longest_where'])})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if meta["split_factor"] > 1:
        console.print(f'data.thinking = "split" costs {meta["split_factor"]:.2f} times the tokens of one row a chat')
    roles = Table(title="tokens by role, before the cut", title_justify="left")
    roles.add_column("role")
    roles.add_column("tokens", justify="right")
    roles.add_column("share", justify="right")
    roles.add_column("trained")
    total = sum(meta["tokens_by_role"].values())
    answers = "all but the " + _turns(report.untrained) if report.untrained and name == "train" else "all"
    for role in TEXT_ROLES:
        count = meta["tokens_by_role"].get(role, 0)
        roles.add_row(role, f"{count:,}", f"{count / total:.1%}", answers if role == "assistant" else "none")
    console.print(roles)
    lengths = Table(title="rows by tokens", title_justify="left", show_header=False)
    lengths.add_column("tokens", justify="right")
    lengths.add_column("rows", justify="right")
    lengths.add_column("")
    most = max(part.counts)
    for low, high, count in zip(part.edges, part.edges[1:], part.counts, strict=False):
        bar = "#" * -(-count * _BAR // most)
        lengths.add_row(f"{low:,} - {high:,}", f"{count:,}", bar)
    console.print(lengths)
    console.print(
        f"train.max_length = {meta['max_length']:,} cuts {counted(meta['truncated_rows'], 'row')}: "
        f"{meta['cut_answers']:,} lose a part of an answer, "
        f"{meta['dropped_rows']:,} have no answer left and are dropped"
        + (f": {one_line(', '.join(meta['dropped'][:5]))}" if meta["dropped"] else "")
        + (f"; train.max_length = {meta['longest_row']} cuts none" if meta["truncated_rows"] else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _turns(count: int) -> str:
    return "turn that says so" if count == 1 else f"{count:,} turns that say so"


def _print_lines(title: str, lines: list[str], console: Console) -> None:
    if not lines:
        return
    console.print(f"\n{title} ({len(lines):,})", style="bold")
    for line in lines[:MOST_SHOWN]:
        console.print(one_line(line), soft_wrap=True, markup=False, highlight=False)
    if len(lines) > MOST_SHOWN:
        console.print(f"and {len(lines) - MOST_SHOWN:,} more")
