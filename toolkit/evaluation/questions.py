"""Which chats an evaluation asks: a recipe's held-out ones, the built-in splits, a file, or BFCL's files."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.chats import Chat
from toolkit.data.parts import HELD_OUT_SPLITS
from toolkit.data.sources import BUILTIN, load_chats
from toolkit.data.table import eval_chats
from toolkit.errors import DataError, did_you_mean
from toolkit.evaluation import bfcl
from toolkit.recipe.schema import Recipe, SourceSection

BFCL = "bfcl:"


def held_out(data: str | None, recipe: Recipe | None, count: int, split: str | None = None) -> tuple[list[Chat], str]:
    """At most `count` chats, and a line that says which.

    data: None for what `recipe` holds out (without a recipe: the built-in splits), builtin:tools, bfcl:FOLDER, a file,
    a folder or a hub id. They are spread evenly over what there is: the built-in splits, BFCL's categories, a recipe's
    held-out chats; of a file the first are taken. split: only this built-in one.

    Raises `DataError` for data that is not there or can't be read, and a split that does not exist.
    """
    if split is not None and split not in HELD_OUT_SPLITS:
        raise DataError(
            f"--split {split}: wanted one of {', '.join(HELD_OUT_SPLITS)}{did_you_mean(split, HELD_OUT_SPLITS)}"
        )
    if data is not None and data.startswith(BFCL):
        _no_split(split, data)
        found = bfcl.read(data.removeprefix(BFCL))
        chats = bfcl.spread(found, count)
        line = f"{len(chats):,} of {data}: {', '.join(found.chats)}"
        return chats, line + (f"; not supported: {', '.join(found.unsupported)}" if found.unsupported else "")
    if data == BUILTIN or (data is None and recipe is None):
        splits = [split] if split else list(HELD_OUT_SPLITS)
        sizes = [count // len(splits) + (index < count % len(splits)) for index in range(len(splits))]
        sources = [
            SourceSection(source=BUILTIN, split=one, size=size) for one, size in zip(splits, sizes, strict=True) if size
        ]
        chats = list(load_chats(sources))
        return chats, f"{len(chats):,} built-in chats, {' and '.join(f'unseen {one}' for one in splits)}"
    if data is not None:
        _no_split(split, data)
        chats = list(load_chats([SourceSection(source=data, limit=count)]))
        return chats, f"{len(chats):,} of {data}"
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


def evenly(chats: Sequence[Chat], count: int) -> list[Chat]:
    """At most `count` chats, spread evenly: held-out chats come one split after the other."""
    if count >= len(chats):
        return list(chats)
    return [chats[index * len(chats) // count] for index in range(count)]


def _no_split(split: str | None, data: str) -> None:
    if split is not None:
        raise DataError(f"--split {split}: only built-in chats have splits, {data} has none")
