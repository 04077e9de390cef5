"""How several ranks share an update, for a plan: whom the others wait for, and what summing gradients takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import InputError
from toolkit.planning.cards import Card
from toolkit.planning.micro_batches import cut, largest, shared
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.planning.lengths import Lengths
    from toolkit.recipe.schema import Recipe

# bytes/s that a sum over cards moves, assumed: NVLink between cards on one board, else PCIe by way of the host's memory
NVLINK, PCIE = 150e9, 8e9
ON_BOARD = ("v100", "v100-32", "a100-40", "a100-80", "h100", "h200")
CORES = 2e9  # between processes on a CPU
MEETING = 0.001  # seconds in which hosts tell each other that they have come to the end of an update; assumed


@dataclass(frozen=True, slots=True)
class Sharing:
    """`share`: of an update's tokens, those of the rank with most, in the mean; `pieces`: that rank's packed
    micro-batches, None where chats are padded. `summing`: seconds an update."""

    ranks: int = 1
    share: float = 1.0
    pieces: float | None = None
    summing: float = 0.0


def check_share(chats: int, ranks: int) -> None:
    """Raise `InputError` where an update has fewer chats than there are ranks."""
    if chats < ranks:
        raise InputError(
            f"{ranks} GPUs can't share an update of {counted(chats, 'chat')} (train.per_device_train_batch_size x "
            "train.gradient_accumulation_steps); wanted one a GPU at least"
        )


def sharing(recipe: Recipe, card: Card, lengths: Lengths, trainable: int, budget: int | None, ranks: int) -> Sharing:
    """How `ranks` of these cards share an update whose micro-batches have at most `budget` tokens, or are padded.

    Means are over updates drawn from rows of these lengths. Raises `InputError` where an update has fewer chats than
    there are ranks.
    """
    check_share(recipe.chats_per_update, ranks)
    chats = lengths.in_update(recipe.chats_per_update)
    shares, pieces = [], []
    for groups in shared(lengths.tokens, chats if budget is None else lengths.rows(chats), ranks):
        shares.append(largest(groups))
        if budget is not None:
            pieces.append(max(len(cut(group, budget)) for group in groups))
    summing = 0.0
    if ranks > 1:
        link = CORES if card.name == "cpu" else NVLINK if card.name in ON_BOARD else PCIE
        summing = MEETING + 2 * (ranks - 1) / ranks * 4 * trainable / link  # a ring's all-reduce of float32
    return Sharing(ranks, float(np.mean(shares)), float(np.mean(pieces)) if pieces else None, summing)
