"""Which chats an evaluation asks: a recipe's held-out ones, the built-in sets, a file, or BFCL's files.

The built-in chats have two sets apart from training. The development set is what levers are chosen on, again and
again; the test set shares neither its phrasings nor its unseen tools, and is for final figures only.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.chats import BUILTIN, TEST_SET, Chat
from toolkit.data.held_out import HELD_OUT_SPLITS
from toolkit.data.sources import load_chats, local_files
from toolkit.data.table import eval_chats
from toolkit.errors import DataError, did_you_mean
from toolkit.evaluation import bfcl
from toolkit.evaluation.results import SETS
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.world import TEST_SIZE

BFCL = "bfcl:"
DEFAULT_COUNT = 200


def held_out(
    data: str | None, recipe: Recipe | None, count: int | None = None, split: str | None = None
) -> tuple[list[Chat], str]:
    """At most `count` chats, and a line that says which.

    data: None for what `recipe` holds out (without a recipe: the development set), builtin:tools for the development
    set, builtin:test for the test set, bfcl:FOLDER, a file, a folder or a hub id. They are spread evenly over what
    there is: the built-in splits, BFCL's categories, a recipe's held-out chats, a file; of a hub data set, which may
    be too large to fetch whole, the first are taken.
    count: None for the whole test set, 200 of anything else. split: only this built-in one.

    Raises `DataError` for data that is not there or can't be read, and a split that does not exist.
    """
    if split is not None and split not in HELD_OUT_SPLITS:
        raise DataError(
            f"--split {split}: wanted one of {', '.join(HELD_OUT_SPLITS)}{did_you_mean(split, HELD_OUT_SPLITS)}"
        )
    if data in SETS or (data is None and recipe is None):
        return _built_in(data or BUILTIN, count, split)
    count = count or DEFAULT_COUNT
    if data is not None and data.startswith(BFCL):
        _no_split(split, data)
        found = bfcl.read(data.removeprefix(BFCL))
        chats = bfcl.spread(found, count)
        line = f"{len(chats):,} of {data}: {', '.join(found.chats)}"
        return chats, line + (f"; not supported: {', '.join(found.unsupported)}" if found.unsupported else "")
    if data is not None:
        _no_split(split, data)
        if local_files(data) is None:
            chats = list(load_chats([SourceSection(source=data, limit=count)]))
            return chats, f"the first {len(chats):,} of {data}"
        chats, total = _of_files(data, count)
        return chats, f"{len(chats):,} of the {total:,} of {data}"
    assert recipe is not None
    chats = eval_chats(recipe)
    if split is not None:
        chats = [chat for chat in chats if chat.meta.get("split") == split]
    if not chats:
        raise DataError(
            f"the recipe holds out no chats{f' of the split {split}' if split else ''}; name others with --data"
        )
    total = len(chats)
    chats = evenly(chats, count)
    return chats, f"{len(chats):,} of the {total:,} that the recipe holds out"


def _built_in(name: str, count: int | None, split: str | None) -> tuple[list[Chat], str]:
    """`count` chats of the development or the test set, as many of each split."""
    splits = [split] if split else list(HELD_OUT_SPLITS)
    if name == TEST_SET:
        whole = TEST_SIZE * len(splits) // len(HELD_OUT_SPLITS)
        count = min(count or whole, whole)
    count = count or DEFAULT_COUNT
    sizes = [count // len(splits) + (index < count % len(splits)) for index in range(len(splits))]
    sources = [
        SourceSection(source=name, split=one, size=size) for one, size in zip(splits, sizes, strict=True) if size
    ]
    chats = list(load_chats(sources))
    unseen = " and ".join(f"unseen {one}" for one in splits)
    return chats, f"{len(chats):,} built-in chats of the {SETS[name]}, {unseen}"


def evenly(chats: Sequence[Chat], count: int) -> list[Chat]:
    """At most `count` chats, spread evenly: held-out chats come one split after the other."""
    if count >= len(chats):
        return list(chats)
    return [chats[place] for place in _places(len(chats), count)]


def _places(total: int, count: int) -> list[int]:
    """Where `count` of `total` chats are taken."""
    return [index * total // count for index in range(count)]


def _of_files(data: str, count: int) -> tuple[list[Chat], int]:
    """At most `count` chats, spread evenly over a file or a folder, and how many there are. A file of many is read
    twice, so that no more are held than are asked."""
    source = SourceSection(source=data)
    chats: list[Chat] = []
    total = 0
    for chat in load_chats([source]):
        total += 1
        if total <= count:
            chats.append(chat)
    if total > count:
        places = set(_places(total, count))
        chats = [chat for place, chat in enumerate(load_chats([source])) if place in places]
    return chats, total


def _no_split(split: str | None, data: str) -> None:
    if split is not None:
        raise DataError(f"--split {split}: only built-in chats have splits, {data} has none")
