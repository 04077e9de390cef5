"""Which chats are trained on and which are held out.

With `eval.sources` the parts are what the recipe says. With built-in chats alone, held out are the built-in splits made
for it: half phrasings never seen in training, half tools never seen. Otherwise `eval.holdout` chats, or that fraction,
are taken from the data by the hash of their content, so identical chats always fall on the same side.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cache import cache_root, keep, kept
from toolkit.chats import Chat
from toolkit.data.held_out import Part, divided, sources_of
from toolkit.data.keys import data_key, digest
from toolkit.data.notes import Reading
from toolkit.data.pipeline import processes
from toolkit.data.sources import load_chats
from toolkit.errors import DataError, Problem
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe, SourceSection

LEAST_CHATS = 12  # held out, for anything to be said of chats that were not: fewer are those few chats
_HASHES = 2**64


@dataclass(frozen=True, slots=True)
class Holdout:
    """Chats whose content hash is below `below` are held out; `chats` were counted in the data, all in all."""

    below: int
    chats: int


def part_chats(recipe: Recipe, part: Part, reading: Reading | None = None, cache: Path | None = None) -> Iterator[Chat]:
    """The chats of one part, streamed. Bad rows are left out and noted in `reading`; without it, more of them than
    data.max_bad allows raise `DataError` at the end."""
    strict = reading is None
    reading = reading or Reading(recipe.data.max_bad)
    yield from _part_chats(recipe, part, reading, cache)
    if strict:
        reading.stop()


def _part_chats(recipe: Recipe, part: Part, reading: Reading, cache: Path | None) -> Iterator[Chat]:
    if divided(recipe):
        return _divided(recipe, part, reading, cache)
    return _chats(recipe, sources_of(recipe, part), reading)


def _chats(recipe: Recipe, sources: Sequence[SourceSection], reading: Reading) -> Iterator[Chat]:
    return load_chats(sources, reading, makers(recipe))


def makers(recipe: Recipe) -> int:
    """Processes that make built-in chats: half of those that build the table, as making takes as long as rendering."""
    return max(1, processes(recipe.data.num_proc) // 2)


def few_held_out(recipe: Recipe, chats: int) -> str:
    """What there is to say of `chats` held-out chats where `eval.holdout` is a share and gave too few; else nothing.

    A share is of all that chats' hashes can be, so it gives few chats more or fewer of them, or none.
    """
    wanted = recipe.eval.holdout
    if not 0 < wanted < 1 or recipe.eval.sources or chats >= LEAST_CHATS:
        return ""
    return (
        f"eval.holdout = {wanted:g} holds out {counted(chats, 'chat')}, too few to say how the model does on others: "
        f"give their number instead of a share, as eval.holdout = {LEAST_CHATS} or more"
    )


def usual_holdout(chats: int) -> int:
    """How many of so many different chats to hold out: a tenth, no fewer than verdicts want where there are three times
    as many; 0 of a handful."""
    if chats < 8:
        return 0
    return min(200, max(chats // 10, min(LEAST_CHATS, chats // 3)))


def many_held_out(recipe: Recipe, trained: int, held_out: int) -> str:
    """What there is to say where `eval.holdout` takes more of the chats than it leaves to train on, as its default does
    of a few hundred; else nothing."""
    if not divided(recipe) or held_out <= trained:
        return ""
    return (
        f"eval.holdout = {recipe.eval.holdout:g} holds out {counted(held_out, 'chat')} and leaves {trained:,} to train "
        f"on: {lower_holdout(trained + held_out)}"
    )


def lower_holdout(chats: int) -> str:
    """What to do where too many of so many chats are held out."""
    usual = usual_holdout(chats)
    if not usual:
        return "set eval.holdout = 0 and eval.early_stopping_patience = 0, or name other chats in eval.sources"
    return f"set a lower number, as eval.holdout = {usual}, or name other chats in eval.sources"


def eval_chats(recipe: Recipe) -> list[Chat]:
    """The held-out chats, the same ones in the same order as the token table's eval part."""
    return list(part_chats(recipe, "eval"))


def holdout(recipe: Recipe, cache: Path | None = None) -> Holdout:
    """Where the data is divided. Reads all of it once; kept in the cache, under the data's own hash."""
    wanted = recipe.eval.holdout
    place = (cache or cache_root()) / "holdout" / f"{digest([data_key(recipe.data.sources), wanted])}.json"
    if (known := kept(place)) is not None:
        return Holdout(**json.loads(known))
    reading = Reading()
    found = _find_holdout(_chats(recipe, recipe.data.sources, reading), wanted, reading)
    keep(place, json.dumps(asdict(found)))
    return found


def chat_hash(chat: Chat) -> int:
    """64 bits of a chat's content: turns, calls and tools, not where it came from."""
    content: list[Any] = [
        [(turn.role, turn.content, [(call.name, call.arguments) for call in turn.tool_calls]) for turn in chat.turns],
        chat.tools,
    ]
    if not all(turn.trained for turn in chat.turns):
        content.append([turn.trained for turn in chat.turns])
    text = json.dumps(content, ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _divided(recipe: Recipe, part: Part, reading: Reading, cache: Path | None) -> Iterator[Chat]:
    border = holdout(recipe, cache).below
    seen: set[int] = set()
    for chat in _chats(recipe, recipe.data.sources, reading):
        content = chat_hash(chat)
        if (content < border) != (part == "eval"):
            continue
        if part == "eval":
            if content in seen:  # a chat that stands in the data twice is measured once
                continue
            seen.add(content)
        yield chat


def _find_holdout(chats: Iterator[Chat], wanted: float, reading: Reading) -> Holdout:
    """The border below which `wanted` different chats lie (a count from 1 up), or that fraction of all hashes."""
    total = 0
    if wanted < 1:
        for _ in chats:
            total += 1
        return Holdout(int(wanted * _HASHES), total)
    size = int(wanted)
    lowest: list[int] = []  # a heap of the negated lowest hashes
    members: set[int] = set()
    for chat in chats:
        total += 1
        content = chat_hash(chat)
        if content in members or (len(lowest) > size and content >= -lowest[0]):
            continue
        members.add(content)
        heapq.heappush(lowest, -content)
        if len(lowest) > size + 1:  # one more than wanted: the first hash of the training side is the border
            members.discard(-heapq.heappop(lowest))
    if not total:
        reading.stop()
    if len(lowest) <= size:
        message = (
            f"eval.holdout = {size:,} keeps all {len(lowest):,} different chats out of training; "
            f"{lower_holdout(len(lowest))}"
        )
        raise DataError([*reading.by_cause(), Problem("", message)])  # bad rows may be why there are so few
    return Holdout(-lowest[0], total)
