"""Step times that others published of a T4, against the prediction: how long would the chats have to be?

The chats' mean length is stated nowhere, so a time can't be compared with a prediction outright. Turned round, the
prediction says how long they were in the mean, and the size of the data set says whether that can be. Rows are padded
to the longer of two chats, as Unsloth did when these notebooks were run, and are taken to be spread evenly from
nothing to twice the mean, cut at 2,048 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from bench.report import table
from toolkit.models.families import KNOWN
from toolkit.planning.cards import CARDS, Card
from toolkit.planning.cost import Work, predict, range_of, rates_of
from toolkit.planning.lengths import Lengths
from toolkit.planning.setup import setup_of
from toolkit.planning.steps import Updates
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe

LONGEST = 2048
BYTES = 4.3  # of English text and code, for a token
NOTEBOOKS = "stored outputs of unslothai/notebooks, 2026-08-18"


@dataclass(frozen=True, slots=True)
class Published:
    """A run that somebody published: `seconds` for `updates` of `chats` chats, two at a time.

    `model`: None where its kind can't be planned. `bytes_a_chat`: of the data set, and `data` which; None where no size
    is known. `unsaid`: what the source leaves open.
    """

    title: str
    model: str | None
    updates: int
    seconds: float
    r: int = 16
    four_bit: bool = True
    chats: int = 8
    data: str = ""
    bytes_a_chat: float | None = None
    unsaid: str = ""

    @property
    def update(self) -> float:
        return self.seconds / self.updates


FINETOME = {"data": "FineTome-100k: 239,650,961 bytes, 100,000 chats", "bytes_a_chat": 2397.0}
ALPACA = {"data": "Alpaca, cleaned: 47 MB as text, 51,760 chats", "bytes_a_chat": 910.0}
GLAIVE = {"data": "Glaive v2: 284,606,474 bytes as text, 112,390 chats", "bytes_a_chat": 2532.0}
T4: tuple[Published, ...] = (
    Published("Qwen3-4B-Instruct, 16-bit, r = 32", "Qwen/Qwen3-4B", 60, 572, 32, False, **FINETOME),  # type: ignore[arg-type]
    Published("Llama-3.2-3B, 4-bit", "meta-llama/Llama-3.2-3B", 60, 446, **FINETOME),  # type: ignore[arg-type]
    Published("Qwen3-14B, 4-bit, r = 32", "Qwen/Qwen3-14B", 60, 802, 32, **ALPACA),  # type: ignore[arg-type]
    Published(
        "Qwen2.5-3B, 4-bit, 2,000 rows once",
        "Qwen/Qwen2.5-3B",
        250,
        1260,
        unsaid="chats an update, cut, padding and which rows are not stated: 8, padded, taken",
        **GLAIVE,  # type: ignore[arg-type]
    ),
    Published("LFM2-1.2B", None, 60, 151),
    Published("LFM2.5-1.2B", None, 157, 697, chats=16),
    Published("Granite-4.0-350M", None, 60, 153),
    Published("Gemma 4 E2B", None, 60, 191, chats=4),
    Published("FunctionGemma-270M", None, 500, 721),
)


@dataclass(frozen=True, slots=True)
class Implied:
    """The mean chat that a published time implies, in tokens: as taken, and where products sustain least and most.

    `expected`: by the size of the data set.
    """

    tokens: float
    least: float
    most: float
    expected: float | None

    @property
    def plausible(self) -> bool | None:
        """Whether the data set's mean, within a fifth, is within the range; None where it is not known."""
        if self.expected is None:
            return None
        return 0.8 * self.least <= self.expected <= 1.2 * self.most


def work_of(one: Published, mean: float) -> Work:
    """Updates of chats of this mean length."""
    assert one.model is not None
    shape = KNOWN[one.model]
    recipe = Recipe(model=ModelSection(load_in_4bit=one.four_bit), lora=LoraSection(r=one.r, lora_dropout=0.0))
    tokens = np.linspace(0.04 * mean, 1.96 * mean, 500).clip(max=LONGEST).round().astype(np.int64)
    chats = one.chats
    return Work(
        setup=setup_of(recipe, shape, "unsloth", "fp16", cuda=True, flash=False),
        lengths=Lengths(chats * one.updates, tokens, 1.0, 1.0, "published", False),
        updates=Updates(chats * one.updates, one.updates, one.updates, 0),
        batch=2,
        accumulation=chats // 2,
    )


def implied(one: Published, card: Card | None = None) -> Implied | None:
    """What a published time implies; None for a model that can't be planned."""
    card = card or CARDS["t4"]
    rates = rates_of(card, "fp16")
    if one.model is None or rates is None:
        return None

    def solved(kind: int) -> float:
        low, high = 16.0, float(LONGEST)
        for _ in range(40):
            middle = (low + high) / 2
            work = work_of(one, middle)
            fast, slow = range_of(work, card, rates)
            seconds = (predict(work, rates).update, slow, fast)[kind]
            low, high = (middle, high) if seconds < one.update else (low, middle)
        return low

    expected = one.bytes_a_chat / BYTES if one.bytes_a_chat else None
    return Implied(solved(0), solved(1), solved(2), expected)


def rows(several: Sequence[Published] = T4) -> list[list[str]]:
    """A line of cells for each run."""
    found = []
    for one in several:
        cells = [one.title, f"{one.chats}", f"{one.update:.2f}"]
        result = implied(one)
        if result is None:
            found.append([*cells, "", "", "not planned: another kind of model"])
            continue
        verdict = {True: "plausible", False: "not the same", None: "not known"}[result.plausible]
        verdict += f"; {one.unsaid}" if one.unsaid else ""
        expected = f"{result.expected:.0f} ({one.data})" if result.expected else ""
        found.append([*cells, f"{result.tokens:.0f} ({result.least:.0f}-{result.most:.0f})", expected, verdict])
    return found


HEAD = ("run", "chats an update", "s an update, published", "mean tokens implied", "mean by the data's size", "")


def show(console: Console) -> None:
    """Print the table as Markdown, and what it is."""
    for line in table(HEAD, rows()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"\nPublished: {NOTEBOOKS}, and a model card. Implied: by the formula of `toolkit plan`; in brackets with "
        "products at the least and the most that a T4 is known to sustain.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
