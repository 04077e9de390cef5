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

from toolkit.cache import cache_root, discard
from toolkit.data.keys import digest, table_key
from toolkit.data.parts import Part, eval_chats
from toolkit.errors import DataError, Problem
from toolkit.manifest import damage, has_manifest, listed
from toolkit.terminal import warn

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe

__all__ = ["IGNORED", "TokenTable", "build", "eval_chats", "find"]

_LARGE = 1 << 20  # bytes: larger files are not read to find out whether a table is there
IGNORED = -100  # the label of a token that is not trained


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
    def content(self) -> str:
        """A hash of tokens, masks and where rows and chats begin: what is trained on, whatever made it."""
        files = listed(self.folder)
        return digest([files[f"{name}.npy"] for name in ("input_ids", "trained", "row_offsets", "chat_offsets")])

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
    recipe: Recipe, folder: Path, part: Part = "train", cache: Path | None = None, *, deep: bool = False
) -> TokenTable | None:
    """The table of a recipe if it is there already, and whole; imports neither torch nor transformers.

    `deep` reads every byte of it; else large files are known by their size.
    """
    place = _place(table_key(recipe, folder, part), cache)
    return TokenTable(place) if place.is_dir() and not _damage(place, deep) else None


def build(
    recipe: Recipe, folder: Path, part: Part = "train", cache: Path | None = None, progress: bool = True
) -> TokenTable:
    """The table of a recipe, made now unless it is there whole. `folder` is the model's, with the tokenizer.

    Raises `DataError` for bad rows, no chats, or more rows without a trained token than data.max_dropped allows.
    """
    table = find(recipe, folder, part, cache, deep=True)
    if table is None:
        from toolkit.data.tablefile import write

        key = table_key(recipe, folder, part)
        place = _place(key, cache)
        if place.is_dir():
            if progress:
                warn(f"{part}: {place} is made again: {_damage(place, deep=True)}")
            discard(place)
        write(recipe, folder, part, place, key=key, cache=cache, progress=progress)
        table = TokenTable(place)
    refuse_dropped(recipe, table.meta)
    if progress and (note := losses(table.meta)):
        warn(f"{part}: {note}")
    return table


def _damage(place: Path, deep: bool) -> str | None:
    if not has_manifest(place):
        return "it has no manifest"
    return damage(place, largest=None if deep else _LARGE)


def losses(meta: dict[str, Any]) -> str:
    """One line about what max_length cut away, or an empty string."""
    parts = []
    if meta["cut_answers"]:
        parts.append(f"{meta['cut_answers']:,} rows lost a part of their answers at {meta['max_length']:,} tokens")
    if meta["dropped_rows"]:
        first = ", ".join(meta["dropped"][:3])
        more = ", ..." if meta["dropped_rows"] > 3 else ""
        parts.append(f"{meta['dropped_rows']:,} rows had no answer left and are dropped: {first}{more}")
    return "; ".join(parts)


def refuse_dropped(recipe: Recipe, meta: dict[str, Any]) -> None:
    """Raise `DataError` when more rows have nothing to train on than the recipe allows."""
    dropped, rows = meta["dropped_rows"], meta["rows"] + meta["dropped_rows"]
    if meta["rows"] and dropped <= recipe.data.max_dropped * rows:
        return
    first = [Problem(where, "nothing left to train on") for where in meta["dropped"][:5]]
    raise DataError(
        [
            Problem(
                "",
                f"{dropped:,} of {rows:,} rows ({dropped / rows:.1%}) have no trained token within train.max_length = "
                f"{recipe.train.max_length:,}, more than data.max_dropped = {recipe.data.max_dropped:g} allows; the "
                f"longest row has {meta['longest_row']:,} tokens: raise train.max_length, or data.max_dropped",
            ),
            *first,
        ]
    )


def _place(key: str, cache: Path | None) -> Path:
    return (cache or cache_root()) / "tables" / key
