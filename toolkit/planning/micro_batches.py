"""How an update is shared by ranks and cut into packed micro-batches: what the trainer does, and what a plan counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DRAWN = 20_000  # rows that a plan draws
MOST_UPDATES = 200


def spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices of rows or chats in `count` groups, some of which may be empty, with about as many tokens in each.

    The longest goes first, each into the group with the fewest tokens (longest processing time first, Graham 1969).
    Groups hold their indices in order.
    """
    groups: list[list[int]] = [[] for _ in range(count)]
    filled = [0] * count
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        least = filled.index(min(filled))
        groups[least].append(i)
        filled[least] += lengths[i]
    return [sorted(group) for group in groups]


def cut(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows, cut into as few groups of at most `budget` tokens as `spread` finds.

    A row longer than `budget` has a group of its own.
    """
    if not lengths:
        return []
    for count in range(max(1, -(-sum(lengths) // budget)), len(lengths) + 1):
        groups = spread(lengths, count)
        if all(sum(lengths[i] for i in group) <= budget or len(group) == 1 for group in groups):
            return [group for group in groups if group]
    return [[i] for i in range(len(lengths))]


def drawn(tokens: npt.NDArray[np.int64], rows: int) -> Iterator[list[int]]:
    """The lengths of the rows of some updates, drawn from rows of these lengths; always the same ones."""
    random = np.random.default_rng(0)
    for _ in range(max(1, min(MOST_UPDATES, DRAWN // rows))):
        yield random.choice(tokens, rows).tolist()


def mean_pieces(tokens: npt.NDArray[np.int64], rows: int, budget: int) -> float:
    """Micro-batches of an update of `rows` rows in the mean, over updates drawn from rows of these lengths."""
    return float(np.mean([len(cut(update, budget)) for update in drawn(tokens, rows)]))
