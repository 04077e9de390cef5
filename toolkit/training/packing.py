"""An update's chats cut into packed micro-batches: chats stand one after the other, without padding between them.

Positions start again at every row and attention is closed at its edges (`toolkit.kernels.packed_attention`), so a
packed micro-batch computes what a padded one does. How an update is cut changes nothing but memory and speed: the loss
is summed over trained tokens and divided by the update's number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from toolkit.data.table import IGNORED
from toolkit.planning.micro_batches import cut
from toolkit.training.dataset import Row

MICRO_BATCHES = "micro_batches"


def pack(
    rows: Sequence[Row], pad_token_id: int, multiple: int = 1, edges_multiple: int = 1, least_edges: int = 0
) -> dict[str, Any]:
    """Rows one after the other, filled up to a `multiple` of tokens by rows that train nothing.

    Filling is cut into rows no longer than the longest of `rows`. The last edge is repeated until there are a multiple
    of `edges_multiple` edges and no fewer than `least_edges`, so that few shapes occur.

    Returns input_ids, labels and position_ids of shape [1, tokens], int64; `sizes`, the rows' lengths, filling
    included; and `cu_seq_lens`, where rows start and the last one ends, int32 of shape [rows + 1] or, rounded up, more.
    """
    sizes = [len(ids) for ids, _ in rows]
    tokens = -(-sum(sizes) // multiple) * multiple
    filling = tokens - sum(sizes)
    longest = max(sizes)
    sizes += [min(longest, filling - start) for start in range(0, filling, longest)]
    input_ids = np.full(tokens, pad_token_id, dtype=np.int64)
    labels = np.full(tokens, IGNORED, dtype=np.int64)
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    for (ids, targets), start in zip(rows, edges[:-1], strict=False):
        input_ids[start : start + len(ids)] = ids
        labels[start : start + len(ids)] = targets
        labels[start] = IGNORED  # nothing comes before a row's first token
    wanted = max(len(edges), least_edges)
    repeated = wanted + -wanted % edges_multiple - len(edges)
    positions = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
    return {
        "input_ids": torch.from_numpy(input_ids)[None],
        "labels": torch.from_numpy(labels)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seq_lens": torch.from_numpy(np.pad(edges, (0, repeated), mode="edge")),
        "sizes": sizes,
        "predicting": torch.from_numpy(np.flatnonzero(labels[1:] != IGNORED)),
    }


class PackingCollator:
    """Cuts the rows of some chats, those of a whole update in training, into packed micro-batches.

    With an `edges_multiple`, all have as many edges as the one that had most so far: an epoch's last update may have
    few chats, and code that is compiled or kernels that are recorded for another number of edges cost more than it.

    Returns {"micro_batches": [as `pack` gives them, ...], "groups": which of the rows each has, "trained": tokens with
    a label, "real_tokens": tokens}.
    """

    def __init__(self, pad_token_id: int, budget: int, multiple: int = 1, edges_multiple: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.budget = budget
        self.multiple = multiple
        self.edges_multiple = edges_multiple
        self.edges = 0  # the most that any had

    def __call__(self, chats: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows: list[Row] = [row for chat in chats for row in chat["rows"]]
        groups = cut([len(ids) for ids, _ in rows], self.budget)
        packed = [self.pack([rows[i] for i in group], self.multiple) for group in groups]
        return {
            MICRO_BATCHES: packed,
            "groups": groups,
            "trained": sum(int((one["labels"] != IGNORED).sum()) for one in packed),
            "real_tokens": sum(len(ids) for ids, _ in rows),
        }

    def recut(self, update: dict[str, Any], budget: int) -> dict[str, Any]:
        """An update that this collator made, cut again into micro-batches of at most `budget` tokens, as if it had been
        made so; as it is where all of several rows have no more."""
        both = list(zip(update["groups"], update[MICRO_BATCHES], strict=True))
        if all(len(group) == 1 or sum(one["sizes"][: len(group)]) <= budget for group, one in both):
            return update
        rows: dict[int, Row] = {}
        for group, one in both:
            parts = (one[name][0].cpu().split(one["sizes"]) for name in ("input_ids", "labels"))
            found = ((ids.numpy(), labels.numpy()) for ids, labels in zip(*parts, strict=True))
            rows |= dict(zip(group, found, strict=False))  # filling comes after the rows
        groups = cut([len(rows[i][0]) for i in sorted(rows)], budget)
        packed = [self.pack([rows[i] for i in group], self.multiple) for group in groups]
        return {**update, MICRO_BATCHES: packed, "groups": groups}

    def pack(self, rows: Sequence[Row], multiple: int) -> dict[str, Any]:
        """`pack` with this collator's settings, filled up to a `multiple` of tokens."""
        one = pack(rows, self.pad_token_id, multiple, self.edges_multiple, self.edges)
        if self.edges_multiple > 1:
            self.edges = max(self.edges, len(one["cu_seq_lens"]))
        return one


class KnownLengths:
    """Fills a micro-batch that is shorter than all before it up to the shortest of them, after the first updates.

    Layers are compiled for each length, and an epoch's last update may have few chats: seconds of compilation for a
    fraction of a second of training.
    """

    def __init__(self, collator: PackingCollator, first: int = 8) -> None:
        self.collator, self.first = collator, first
        self.updates, self.shortest = 0, 0

    def __call__(self, update: dict[str, Any]) -> dict[str, Any]:
        """An update as the collator gives it, with micro-batches filled up where that spares a length."""
        if not update[MICRO_BATCHES]:  # a rank's share of fewer chats than there are ranks
            return update
        filled = [self._filled(one) for one in update[MICRO_BATCHES]]
        shortest = min(one["input_ids"].shape[1] for one in filled)
        self.shortest = min(self.shortest or shortest, shortest)
        self.updates += 1
        return {**update, MICRO_BATCHES: filled}

    def forget(self) -> None:
        """Begin again, where micro-batches have come to be cut smaller."""
        self.updates, self.shortest = 0, 0

    def _filled(self, one: dict[str, Any]) -> dict[str, Any]:
        if self.updates < self.first or one["input_ids"].shape[1] >= self.shortest:
            return one
        parts = (one[name][0].cpu().split(one["sizes"]) for name in ("input_ids", "labels"))  # accelerate moved them
        rows: list[Row] = [(ids.numpy(), labels.numpy()) for ids, labels in zip(*parts, strict=True)]
        return self.collator.pack(rows, self.shortest)
