"""How long the chats are: from the token table where there is one, else a stated assumption."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit import models
from toolkit.data.parts import lower_holdout
from toolkit.data.sources import local_files, none_taken
from toolkit.data.table import find as find_table
from toolkit.errors import DataError
from toolkit.planning.estimate import Sampled, mixed, sample
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.words import counted, typed

ASSUMED_MEAN = 900
ASSUMED_TRAINED = 0.114  # share of trained tokens in a corpus of tool-calling chats, measured
ROWS = 2000  # that stand for all
MULTIPLE = 8  # rows are padded to a multiple of this on a GPU


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token lengths of the training rows.

    `tokens`: the length of each row, or of a sample with the same distribution. `rows_per_chat` is 1 unless chats are
    split into a row for each assistant turn. `trained`: the share of tokens with a label. `origin` says where this is
    from. Where they are not `measured`, one row has max_length tokens. `note`: what is wrong with rows that were seen.
    """

    chats: int
    tokens: npt.NDArray[np.int64]
    rows_per_chat: float
    trained: float
    origin: str
    measured: bool
    note: str = ""

    @property
    def mean(self) -> float:
        """Real tokens of a chat."""
        return float(self.tokens.mean()) * self.rows_per_chat

    @property
    def longest(self) -> int:
        """The width of the widest micro-batch."""
        return _rounded(float(self.tokens.max()))

    @property
    def attention_width(self) -> int:
        """The length of equal rows whose attention costs each token as much as that of these rows, unpadded."""
        return round(float(self.tokens @ self.tokens) / float(self.tokens.sum()))

    def in_update(self, chats: int) -> int:
        """Chats of an update that is to have so many: no more than there are."""
        return min(chats, self.chats)

    def rows(self, chats: int) -> int:
        """Rows of a micro-batch of `chats` chats."""
        return math.ceil(chats * self.rows_per_chat)

    def expected_width(self, chats: int) -> int:
        """Mean width of micro-batches of `chats` random chats: the mean of the longest of their rows, rounded up."""
        ordered = np.sort(self.tokens)
        share = np.arange(len(ordered) + 1) / len(ordered)
        chance = np.diff(share ** self.rows(chats))
        return _rounded(float(ordered @ chance))


class UncountedError(DataError):
    """How many chats there are is not known, nor how many updates are to be made."""


def lengths_of(recipe: Recipe) -> Lengths:
    """The lengths of a recipe's training rows, from its token table if that is built, else assumed.

    Raises `UncountedError` when there is no table and the number of chats can't be known without one.
    """
    folder = models.find(recipe.model)
    if folder is not None:
        table = find_table(recipe, folder)
        if table is not None and len(table.lengths):
            return from_table(table)
    return assumed(recipe)


def from_table(table: Any) -> Lengths:
    """What a token table (`toolkit.data.table.TokenTable`) says."""
    tokens = np.asarray(table.lengths)
    return Lengths(
        chats=table.n_chats,
        tokens=tokens,
        rows_per_chat=len(tokens) / table.n_chats,
        trained=float(table.trained.sum() / tokens.sum()),
        origin="token table",
        measured=True,
    )


def assumed(recipe: Recipe) -> Lengths:
    """Estimated from the text of the first chats of each source, where all are on this machine, else assumed; cut at
    max_length, which one row reaches: memory is planned for the worst case.

    What is assumed is about 900 tokens a chat, spread evenly from near 0 to twice that, which pads micro-batches of 4
    random chats to 1.57 times their real tokens; 1.56 was measured.
    """
    longest, chats = recipe.train.max_length, _training_chats(recipe)
    found = _estimated(recipe)
    if found is not None:
        tokens = np.append(found.tokens.clip(max=longest), longest)
        return Lengths(
            chats=chats,
            tokens=tokens,
            rows_per_chat=len(found.tokens) / found.chats,
            trained=float((found.trained * np.minimum(1, longest / found.tokens)).sum() / tokens[:-1].sum()),
            origin=f"estimated from the text of the first chats; `{typed('data', 'build')}` counts them all",
            note=found.bad,
            measured=False,
        )
    spread = np.linspace(0.04 * ASSUMED_MEAN, 1.96 * ASSUMED_MEAN, ROWS).clip(max=longest)
    return Lengths(
        chats=chats,
        tokens=np.append(spread, longest).round().astype(np.int64),
        rows_per_chat=1.0,
        trained=ASSUMED_TRAINED,
        origin=f"assumed: about {ASSUMED_MEAN} tokens a chat, {ASSUMED_TRAINED:.1%} of them trained; "
        f"`{typed('data', 'build')}` measures them",
        measured=False,
    )


def _estimated(recipe: Recipe) -> Sampled | None:
    sources = recipe.data.sources
    parts = [sample(recipe, source) for source in sources]
    counts = [_count(source) for source in sources]
    if len(sources) > 1 and None in counts:
        return None  # how much of each there is
    taken = [(part, float(count or 1)) for part, count in zip(parts, counts, strict=True) if part is not None]
    return mixed(taken, ROWS) if taken and len(taken) == len(parts) else None


def _training_chats(recipe: Recipe) -> int:
    counts = [_count(source) for source in recipe.data.sources]
    chats = sum(count for count in counts if count is not None)
    if None in counts:
        if recipe.train.max_steps > 0:
            return recipe.train.max_steps * recipe.chats_per_update  # what the updates take, in one epoch
        unknown = recipe.data.sources[counts.index(None)].source
        raise UncountedError(
            f"how many chats {unknown} has is not known before its token table is built: run "
            f"`{typed('data', 'build')}` on this recipe first, or set train.max_steps"
        )
    if not _all_built_in(recipe) and not recipe.eval.sources:
        held_out = eval_chats(recipe, chats)  # taken from the data; built-in held-out chats are made apart
        if held_out >= chats:
            raise DataError(
                f"eval.holdout: {held_out:,} of {counted(chats, 'chat')} kept out, so none is left to train on; "
                f"{lower_holdout(chats)}"
            )
        chats -= held_out
    return max(1, chats)


def eval_chats(recipe: Recipe, chats: int) -> int:
    """Held-out chats that the evaluation loss is taken over; 0 where their number is not known."""
    if recipe.eval.sources:
        counts = [_count(source) for source in recipe.eval.sources]
        return sum(count for count in counts if count is not None)
    wanted = recipe.eval.holdout
    return int(wanted * chats if wanted < 1 else wanted)


def _all_built_in(recipe: Recipe) -> bool:
    return all(source.builtin for source in recipe.data.sources)


def _count(source: SourceSection) -> int | None:
    """Chats that a source gives, where that can be told at a glance: built-in ones and plain .jsonl files.

    Raises `DataError` for a file that is not there, and a weight that takes none of its chats.
    """
    if source.builtin:
        count = source.size
    else:
        files = local_files(source.place)
        if not files or any(file.suffix != ".jsonl" for file in files):
            return source.limit
        count = sum(map(_lines, files))
    taken = int(count * source.weight)
    if count and not taken:
        raise DataError(f"{source.source}: {none_taken(source.weight, count)}")
    return taken if source.limit is None else min(taken, source.limit)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _rounded(width: float) -> int:
    return math.ceil(width / MULTIPLE) * MULTIPLE
