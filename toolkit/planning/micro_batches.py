"""How an update is shared by ranks and cut into packed micro-batches: what the trainer does, and what a plan counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DRAWN = 20_000  # rows that a plan draws
MOST_UPDATES = 200
DEVIATIONS = 4  # above the mean lie 3 updates of 100,000, were they normally distributed


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


def shared(tokens: npt.NDArray[np.int64], rows: int, ranks: int) -> Iterator[list[list[int]]]:
    """The lengths of the rows that each rank has of those updates."""
    for update in drawn(tokens, rows):
        yield [[update[i] for i in group] for group in spread(update, ranks)]


def largest(groups: list[list[int]]) -> float:
    """What part of an update's tokens the rank with most has."""
    counts = [sum(group) for group in groups]
    return max(counts) / sum(counts)


def mean_pieces(tokens: npt.NDArray[np.int64], rows: int, budget: int) -> float:
    """Micro-batches of an update of `rows` rows in the mean, over updates drawn from rows of these lengths."""
    return float(np.mean([len(cut(update, budget)) for update in drawn(tokens, rows)]))


def fullest_share(tokens: npt.NDArray[np.int64], rows: int, ranks: int = 1) -> int:
    """Tokens that hardly any update of `rows` rows of these lengths has more of, or the rank with most of it.

    The mean and `DEVIATIONS` standard deviations of the sum of random rows, and no more than the longest row in each
    place. One that has more all the same is cut into one micro-batch more.
    """
    most = int(tokens.max()) * -(-rows // ranks)
    update = rows * float(tokens.mean()) + DEVIATIONS * float(tokens.std()) * rows**0.5
    share = 1.0 if ranks == 1 else max(largest(groups) for groups in shared(tokens, rows, ranks))
    return min(most, math.ceil(update * share))
