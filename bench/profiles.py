"""What a bench imposes: a card's memory and number formats on the one that is here, and how long the rows are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.data.table import IGNORED
from toolkit.errors import InputError
from toolkit.hardware import AMPERE
from toolkit.planning.cards import Card, find_card
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Profile:
    """`card` is None for this machine as it is. Imposing a card caps torch's memory at what torch sees on the real one.

    `flash`: flash attention may be used. `overrides` are `--set` values over the recipe. `env` is set for each worker.
    """

    name: str
    card: Card | None = None
    flash: bool = True
    overrides: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @property
    def cap(self) -> int | None:
        """Bytes that torch may take; None: all there are."""
        return self.card.memory if self.card else None


THIS = Profile("this")


def find_profile(name: str, here: Card | None = None) -> Profile:
    """`this`, or any card that `toolkit plan --gpu` knows, as `t4`.

    Where `here`, the card in this machine, is the one asked for, nothing has to be imposed but the precision.
    Raises `InputError` for an unknown name.
    """
    if name == "this":
        return THIS
    try:
        card = find_card(name)
    except InputError as error:
        raise InputError(str(error).replace("--gpu", "--profile", 1).replace("and cpu", "and this")) from None
    old = card.capability < AMPERE
    overrides = ("train.fp16=true", "train.bf16=false") if old else ()
    # Unsloth 2026.10.9 compiles blocks where torch can; its compiled kernels need bf16-era cards
    env = (("UNSLOTH_BLOCK_COMPILE", "0"),) if old else ()
    return Profile(card.name, None if here == card else card, flash=not old, overrides=overrides, env=env)


@dataclass(frozen=True, slots=True)
class Shape:
    """`rows` x `tokens` in a micro-batch, or both None for real lengths, those of the recipe's own token table."""

    name: str
    rows: int | None = None
    tokens: int | None = None

    @property
    def fixed(self) -> bool:
        return self.rows is not None

    def overrides(self, recipe: Recipe, *, one_batch: bool) -> tuple[str, ...]:
        """`--set` values that cut an update of `recipe` into micro-batches of this shape.

        Raises `InputError` when an update's chats can't be cut into such micro-batches.
        """
        chats = recipe.chats_per_update
        size = chats if one_batch else self.rows or recipe.train.per_device_train_batch_size
        if chats % size:
            raise InputError(f"--shape {self.name}: {chats} chats an update can't be cut into micro-batches of {size}")
        cut = (f"train.per_device_train_batch_size={size}", f"train.gradient_accumulation_steps={chats // size}")
        return (*cut, f"train.max_length={self.tokens}") if self.tokens else cut


def parse_shape(text: str) -> Shape:
    """`real` or ROWSxTOKENS. Raises `InputError`."""
    if text == "real":
        return Shape("real")
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{1,5})", text)
    if match is None or int(match[2]) < 16:
        raise InputError(f"--shape {text}: wanted real, or ROWSxTOKENS with at least 16 tokens, as 4x2048")
    return Shape(text, int(match[1]), int(match[2]))


class SyntheticTable:
    """Rows of equal length with the interface of `toolkit.data.table.TokenTable`, made when they are read.

    Row i is the same in every process: ids drawn evenly from the vocabulary, `share` of the tokens trained, at the
    row's end as answers are.
    """

    columns = frozenset({"input_ids", "trained"})

    def __init__(self, rows: int, tokens: int, share: float, vocab: int, seed: int = 0) -> None:
        self.n_chats = self.n_rows = rows
        self.tokens, self.vocab, self.seed = tokens, vocab, seed
        self.trained_tokens = min(tokens - 1, max(1, round(share * tokens)))
        self.key = f"synthetic-{rows}x{tokens}-{self.trained_tokens}-{vocab}-{seed}"
        self.meta: dict[str, Any] = {"chats": rows, "rows": rows, "max_length": tokens}

    def __len__(self) -> int:
        return self.n_rows

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.full(self.n_rows, self.tokens, dtype=np.int64)

    @property
    def trained(self) -> npt.NDArray[np.int64]:
        return np.full(self.n_rows, self.trained_tokens, dtype=np.int64)

    def chat_rows(self, chat: int) -> range:
        return range(chat, chat + 1)

    def row(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """`input_ids` and `labels`, both int64[tokens]."""
        numbers = np.random.default_rng((self.seed, index))
        ids = numbers.integers(0, self.vocab, self.tokens, dtype=np.int64)
        labels = ids.copy()
        labels[: self.tokens - self.trained_tokens] = IGNORED
        return ids, labels
