"""Chats out of the token table, and micro-batches out of chats.

A chat is the unit that is shuffled, counted and batched; where the recipe splits a chat into several rows they stay
together, so that an update sees the same 16 chats whatever the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from toolkit.data.table import IGNORED, TokenTable

Row = tuple[np.ndarray, np.ndarray]


def chat_dataset(table: TokenTable, rows: Callable[[TokenTable, int], list[Row]]) -> Any:
    """A `datasets.Dataset` (TRL takes nothing else) whose item `i` is chat `i`, read from the memory-mapped table.

    An item is {"rows": [(input_ids, labels), ...]} as `rows` gives them; nothing but the chat's number is copied.
    """

    def rows_of(batch: dict[str, list[int]]) -> dict[str, list[list[Row]]]:
        return {"rows": [rows(table, chat) for chat in batch["chat"]]}

    return Dataset.from_dict({"chat": list(range(table.n_chats))}).with_transform(rows_of)


class Collator:
    """Pads the rows of some chats to their longest, on the right.

    Returns input_ids, attention_mask and labels of shape [rows, longest], int64; labels are -100 where nothing is
    trained. `real_tokens` is the number of tokens that are not padding; the trainer takes it out again.
    """

    def __init__(self, pad_token_id: int, multiple: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.multiple = multiple

    def __call__(self, chats: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows: list[Row] = [row for chat in chats for row in chat["rows"]]
        longest = max(len(ids) for ids, _ in rows)
        width = -(-longest // self.multiple) * self.multiple
        input_ids = np.full((len(rows), width), self.pad_token_id, dtype=np.int64)
        labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
        attention = np.zeros((len(rows), width), dtype=np.int64)
        for i, (ids, targets) in enumerate(rows):
            input_ids[i, : len(ids)] = ids
            labels[i, : len(ids)] = targets
            attention[i, : len(ids)] = 1
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention),
            "labels": torch.from_numpy(labels),
            "real_tokens": int(attention.sum()),
        }
