"""The token table: every row's tokens and mask on disk, made once, mapped into memory, handed to every engine.

A table is a folder named by the hash of all that decides what is in it (`toolkit.data.keys`):

    input_ids.npy     int32[tokens]   rows laid end to end
    trained.npy       uint8[tokens]   1 where a token is trained
    row_offsets.npy   int64[rows+1]   where each row begins in the two above
    row_trained.npy   int32[rows]     trained tokens of each row
    chat_offsets.npy  int64[chats+1]  which rows a chat has
    kind_codes.npy    int16[chats]    index into meta's kind_names
    source_codes.npy  int16[chats]    index into meta's source_names
    where.txt, where_offsets.npy      the place that each chat came from
    tools.json                        the tools on offer in its chats (`toolkit.data.seen`)
    meta.json                         counts, settings, hashes
    manifest.json                     size and SHA-256 of each of these; what does not fit is made again
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit import models
from toolkit.cache import cache_root
from toolkit.chats import Chat
from toolkit.data.clock import asks_for_a_day, today
from toolkit.data.held_out import Part, divided, parts_of, sources_of
from toolkit.data.keys import data_key, digest, table_key
from toolkit.data.notes import Reading
from toolkit.data.parts import eval_chats as all_eval_chats
from toolkit.data.parts import few_held_out
from toolkit.data.tablefile import write
from toolkit.data.violations import broken_rows
from toolkit.errors import DataError, Problem
from toolkit.files import discard
from toolkit.manifest import NAME as MANIFEST
from toolkit.manifest import damage, has_manifest, listed
from toolkit.terminal import warn
from toolkit.words import counted, typed

if TYPE_CHECKING:
    from toolkit.data.template import ChatTemplate
    from toolkit.recipe.schema import Recipe

__all__ = ["IGNORED", "TokenTable", "build", "eval_chats", "find"]

IGNORED = -100  # the label of a token that is not trained
_LARGE = 1 << 20  # bytes: larger files are not read to find out whether a table is there


class TokenTable:
    """A finished table. Opening reads only meta.json; arrays are mapped when first used. Can be pickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        self._mapped: dict[str, npt.NDArray[Any]] = {}

    def __reduce__(self) -> tuple[type[TokenTable], tuple[Path]]:
        return TokenTable, (self.folder,)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def key(self) -> str:
        return str(self.meta["key"])

    @property
    def columns(self) -> set[str]:
        """Names of its arrays."""
        return {path.stem for path in self.folder.glob("*.npy")}

    @property
    def content(self) -> str:
        """A hash of tokens, masks and where rows and chats begin: what is trained on, whatever made it.

        Raises `DataError` where the table's manifest, which was whole when it was opened, can't be read any more.
        """
        files = listed(self.folder)
        names = [f"{name}.npy" for name in ("input_ids", "trained", "row_offsets", "chat_offsets")]
        if not all(name in files for name in names):
            raise DataError(f"{self.folder / MANIFEST}: can't be read any more; start again, which makes it anew")
        return digest([files[name] for name in names])

    @property
    def day(self) -> str:
        """The date in its texts, as 2026-11-30, where the chat template asks for one; else empty."""
        return str(self.meta.get("day", ""))

    @property
    def n_chats(self) -> int:
        return int(self.meta["chats"])

    @property
    def n_rows(self) -> int:
        return int(self.meta["rows"])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, int64[rows]."""
        return np.diff(self._array("row_offsets"))

    @cached_property
    def trained(self) -> npt.NDArray[np.int64]:
        """Trained tokens of each row, int64[rows]."""
        return self._array("row_trained").astype(np.int64)

    def length_histogram(self, most: int = 12) -> tuple[list[int], list[int]]:
        """Rows by tokens: (edges int[bins + 1], counts int[bins]), at most `most` bins, none narrower than a token."""
        if not self.n_rows:
            return [], []
        spread = int(self.lengths.max() - self.lengths.min())
        counts, edges = np.histogram(self.lengths, bins=max(1, min(most, spread)))
        return [round(float(edge)) for edge in edges], counts.tolist()

    @property
    def kind_names(self) -> list[str]:
        return list(self.meta["kind_names"])

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of each chat."""
        names = self.kind_names
        return [names[code] for code in self._array("kind_codes")]

    @cached_property
    def sources(self) -> list[str]:
        """The source of each chat, as the recipe names it."""
        names = self.meta["source_names"]
        return [names[code] for code in self._array("source_codes")]

    def chat_rows(self, chat: int) -> range:
        """The rows of a chat: one, or one an assistant turn with data.thinking = "split"."""
        offsets = self._array("chat_offsets")
        return range(int(offsets[chat]), int(offsets[chat + 1]))

    def row(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """`input_ids` and `labels` of a row, both int64[T]; labels are -100 where a token is not trained."""
        start, stop = self._bounds(index)
        input_ids = self._array("input_ids")[start:stop].astype(np.int64)
        trained = self._array("trained")[start:stop]
        return input_ids, np.where(trained, input_ids, IGNORED)

    def where(self, chat: int) -> str:
        """The place that a chat came from, as `file:line`."""
        offsets = self._array("where_offsets")
        with (self.folder / "where.txt").open("rb") as file:
            file.seek(int(offsets[chat]))
            return file.read(int(offsets[chat + 1] - offsets[chat])).decode()

    def _bounds(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self.n_rows:
            raise IndexError(f"row {index} of {self.n_rows}")
        offsets = self._array("row_offsets")
        return int(offsets[index]), int(offsets[index + 1])

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self._mapped:
            self._mapped[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return self._mapped[name]


def find(
    recipe: Recipe,
    folder: Path,
    part: Part = "train",
    cache: Path | None = None,
    template: ChatTemplate | None = None,
    *,
    day: str = "",
    deep: bool = False,
) -> TokenTable | None:
    """The table of a recipe if it is there already, and whole; imports neither torch nor transformers.

    `day`: the date that is to be in it where its template asks for one, else any. `deep` reads every byte of it; else
    large files are known by their size.
    """
    place = _place(_key(recipe, folder, part, cache, template, day), cache)
    return TokenTable(place) if place.is_dir() and not _damage(place, deep) else None


def build(
    recipe: Recipe,
    folder: Path,
    part: Part = "train",
    cache: Path | None = None,
    progress: bool = True,
    template: ChatTemplate | None = None,
    day: str = "",
) -> TokenTable:
    """The table of a recipe, made now unless it is there whole. `folder` is the model's, with the tokenizer.

    `template` renders in place of the recipe's own, for a run that began with another, and `day` is the date that it
    writes: without it that of the table that is there, else today.

    Raises `DataError` for no chats, and for more rows that are bad, or have no trained token, than data.max_bad and
    data.max_dropped allow.
    """
    table = find(recipe, folder, part, cache, template, day=day, deep=True)
    if table is None:
        for other in parts_of(recipe):  # before minutes are spent on one part: whether the other's files are there
            data_key(sources_of(recipe, other))
        key = _key(recipe, folder, part, cache, template, day)
        place = _place(key, cache)
        wrong = _damage(place, deep=True) if place.is_dir() else "it is not there"
        if wrong is not None:  # else another process has finished it a moment ago
            if place.is_dir():
                if progress:
                    warn(f"{part}: {place} is made again: {wrong}")
                discard(place)
            asks = asks_for_a_day(folder) if template is None else template.dated
            day = (day or today()) if asks else ""
            write(recipe, folder, part, place, key=key, cache=cache, progress=progress, template=template, day=day)
        table = TokenTable(place)
    refuse_bad(recipe, table.meta)
    refuse_dropped(recipe, table.meta)
    if progress:
        few = few_held_out(recipe, table.n_chats) if part == "eval" else ""
        known = part == "eval" and divided(recipe)  # what rows say was said of the training part
        for note in (losses(table.meta, known), broken(table.meta), "" if known else left_unused(table.meta), few):
            if note:
                warn(f"{part}: {note}")
    return table


def eval_chats(recipe: Recipe) -> list[Chat]:
    """The held-out chats, in the order of the eval part's table, without those that could not be put into it."""
    found = all_eval_chats(recipe)
    if not recipe.data.max_bad:
        return found

    folder = models.find(recipe.model)
    table = find(recipe, folder, "eval") if folder is not None else None
    left_out = set(table.meta.get("left_out", ())) if table is not None else set()
    return [chat for chat in found if chat.where not in left_out]


def _damage(place: Path, deep: bool) -> str | None:
    if not has_manifest(place):
        return "it has no manifest"
    return damage(place, largest=None if deep else _LARGE)


def losses(meta: dict[str, Any], known: bool = False) -> str:
    """One line about what max_length cut away and which rows are not there, or an empty string. `known`: rows that
    could not be read are told of already."""
    parts = []
    if meta["cut_answers"]:
        parts.append(
            f"{counted(meta['cut_answers'], 'row')} lost a part of their answers at {meta['max_length']:,} tokens "
            f"(train.max_length = {meta['longest_row']} cuts none)"
        )
    if meta["dropped_rows"]:
        first = ", ".join(meta["dropped"][:3])
        more = ", ..." if meta["dropped_rows"] > 3 else ""
        parts.append(f"{counted(meta['dropped_rows'], 'row')} dropped, where no answer is left: {first}{more}")
    count, rows = ("unrendered_rows", "unrendered") if known else ("bad_rows", "bad")
    if bad := meta.get(count):  # tables from before have no such count: one bad row ended them
        first = "; ".join(f"{where}: {message}" for where, message in meta[rows][:2])
        some = f"{bad:,} of {counted(meta['read_rows'], 'row')}"
        parts.append(f"{some} can't be used and {'is' if bad == 1 else 'are'} left out: {first}")
    return "; ".join(parts)


def broken(meta: dict[str, Any]) -> str:
    """One line about rows that `toolkit data check` calls not ok and that are trained on all the same, or an empty
    string."""
    return broken_rows(meta.get("broken_rows", 0), meta["chats"], meta["broken"]) if meta.get("broken_rows") else ""


def left_unused(meta: dict[str, Any]) -> str:
    """One line about what rows say that training does not use, or an empty string."""
    found = meta.get("findings") or []
    if not found:
        return ""
    more = f" (and {len(found) - 1:,} more, see `{typed('data', 'check')}`)" if len(found) > 1 else ""
    return f"not all that rows say is used: {found[0]}{more}"


def refuse_bad(recipe: Recipe, meta: dict[str, Any]) -> None:
    """Raise `DataError` when a table was made without more bad rows than the recipe allows."""
    reading = Reading(recipe.data.max_bad)
    reading.rows, reading.bad = meta.get("read_rows", 0), meta.get("bad_rows", 0)
    if reading.too_many:
        lines = [Problem(where, message) for where, message in meta["bad"]]
        raise DataError([*lines, Problem("", f"{reading.summary()}, {reading.advice()}")])


def refuse_dropped(recipe: Recipe, meta: dict[str, Any]) -> None:
    """Raise `DataError` when more rows have nothing to train on than the recipe allows."""
    dropped, rows = meta["dropped_rows"], meta["rows"] + meta["dropped_rows"]
    if not rows:
        raise DataError(f"no chat of the {meta['part']} part could be tokenised, so there is nothing to use")
    if meta["rows"] and dropped <= recipe.data.max_dropped * rows:
        return
    has = "has" if dropped == 1 else "have"
    first = [Problem(where, "nothing left to train on") for where in meta["dropped"][:5]]
    raise DataError(
        [
            Problem(
                "",
                f"{dropped:,} of {counted(rows, 'row')} ({dropped / rows:.1%}) {has} no trained token within "
                f"train.max_length = {recipe.train.max_length:,}, more than "
                f"data.max_dropped = {recipe.data.max_dropped:g} allows; the "
                f"longest row has {meta['longest_row']:,} tokens: raise train.max_length, or data.max_dropped",
            ),
            *first,
        ]
    )


def _key(recipe: Recipe, folder: Path, part: Part, cache: Path | None, template: ChatTemplate | None, day: str) -> str:
    """The key of the table with `day` in it: another than usual where the table that is there has another day."""
    key = table_key(recipe, folder, part, template)
    place = _place(key, cache)
    if not day or not place.is_dir() or _damage(place, deep=False):
        return key
    return key if TokenTable(place).day in ("", day) else digest([key, day])


def _place(key: str, cache: Path | None) -> Path:
    return (cache or cache_root()) / "tables" / key
