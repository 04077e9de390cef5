"""How many updates a run makes and the learning rate of each, counted as transformers' Trainer counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe, TrainSection


@dataclass(frozen=True, slots=True)
class Updates:
    """Counts of one run. An epoch's last micro-batch and last update may hold fewer chats; both count."""

    chats: int
    per_epoch: int
    total: int
    warmup: int

    @property
    def epochs(self) -> float:
        """Epochs that `total` updates cover."""
        return self.total / self.per_epoch


def updates_of(recipe: Recipe, n_chats: int) -> Updates:
    """Updates that `recipe` makes over `n_chats` training chats: 15,694 chats, 16 an update, 3 epochs are 2,943."""
    train = recipe.train
    micro_batches = math.ceil(n_chats / train.per_device_train_batch_size)
    per_epoch = max(1, math.ceil(micro_batches / train.gradient_accumulation_steps))
    total = train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * per_epoch)
    return Updates(n_chats, per_epoch, total, warmup_of(train, total))


def warmup_of(train: TrainSection, total: int) -> int:
    """Updates during which the learning rate rises."""
    return 0 if train.lr_scheduler_type == "constant" else math.ceil(train.warmup_ratio * total)


def learning_rate(train: TrainSection, updates: Updates, update: int) -> float:
    """The rate that update number `update` (from 0) is made with, as transformers' schedules compute it."""
    if update < updates.warmup:
        return train.learning_rate * update / max(1, updates.warmup)
    left = max(1, updates.total - updates.warmup)
    progress = (update - updates.warmup) / left
    match train.lr_scheduler_type:
        case "cosine":
            factor = max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        case "linear":
            factor = max(0.0, (updates.total - update) / left)
        case _:
            factor = 1.0
    return train.learning_rate * factor
