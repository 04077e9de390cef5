"""Keys and values of rows that are each at their own length, in memory that is taken once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin


@dataclass(slots=True)
class Places:
    """Where the next forward writes keys and values: `reading`, the rows [n] whose prompts it reads, or, where that is
    None, each row at its position in `positions` [rows, 1]. A step reads no place from `limit` on."""

    rows: int
    capacity: int
    limit: int
    positions: torch.Tensor
    reading: torch.Tensor | None = None


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values [rows, heads, places, size]."""

    is_sliding = False

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, capacity = self.places.rows, self.places.capacity
        # zeros: a masked place counts for nothing only if it is a number
        self.keys, self.values = (
            new.new_zeros(rows, new.shape[1], capacity, new.shape[3]) for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep what is new; gives what it attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        places = self.places
        both = ((self.keys, key_states), (self.values, value_states))
        if places.reading is not None:
            for mine, new in both:
                mine[:, :, : new.shape[2]].index_copy_(0, places.reading, new)
            return key_states, value_states
        for mine, new in both:
            mine.scatter_(2, places.positions[:, None, :, None].expand_as(new), new)
        return self.keys[:, :, : places.limit], self.values[:, :, : places.limit]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0  # of prompts; a step brings its own mask

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self.places.capacity
