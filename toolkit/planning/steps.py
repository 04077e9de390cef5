"""How many updates a run makes and the learning rate of each, counted as transformers' Trainer counts them.

Under a time budget (`train.max_minutes`) the first updates are made as if there was none and timed; then the number of
updates and the rest of the schedule, its warm-up and its end, are fitted to the time that is left. `TIMED` are timed,
or `EARLY` where so many as `TIMED` do not fit, or `LEAST` where `EARLY` do not. The number that fits
(`train.fitted_steps`) tells which it was, and so all that there is to know to make the same run again. Those timed are
warm-up of the fitted schedule too, as far as they were of the first: what is left is made from the highest rate on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe, TrainSection


TIMED = 8  # updates before the fit; the first warms up
EARLY = 3  # before it, where TIMED do not fit
LEAST = 2  # of any run: the first may be made with a rate of 0


@dataclass(frozen=True, slots=True)
class Updates:
    """Counts of one run. An epoch's last micro-batch and last update may hold fewer chats; both count.

    `planned`: what `total` was before it was fitted to a time budget, whose rates the first `timed` updates have; None
    where nothing was fitted.
    """

    chats: int
    per_epoch: int
    total: int
    warmup: int
    planned: int | None = None

    @property
    def timed(self) -> int:
        """Updates that were made before `total` was fitted to a time budget; 0 where nothing was fitted."""
        if self.planned is None:
            return 0
        return TIMED if self.total > TIMED else min(self.total, EARLY)

    @property
    def caution(self) -> str:
        """What there is to add where a time budget ends a run before its rate is up; else nothing."""
        return "" if self.warmup < self.total else "; that is warm-up alone, which teaches next to nothing"

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
    updates = Updates(n_chats, per_epoch, total, warmup_of(train, total))
    return updates if train.fitted_steps is None else fitted(train, updates, train.fitted_steps)


def fitted(train: TrainSection, updates: Updates, total: int) -> Updates:
    """`updates` when only `total` of them fit into the time budget; as they are when all do."""
    if total >= updates.total:
        return updates
    fewer = replace(updates, total=total, planned=updates.total)
    return replace(fewer, warmup=max(warmup_of(train, total), min(fewer.timed, updates.warmup)))


def fitting(
    updates: Updates, seconds: float, update: float, evaluation: float, every: int | None, made: int = 0
) -> int:
    """How many updates fit: those `made`, and what then fits into `seconds`.

    `update` and `evaluation`: seconds of one. `every`: updates between evaluations, of which one more ends the run;
    None where there is none. `made`: `LEAST`, `EARLY` or `TIMED`, and what is found is a number that tells so
    (`Updates.timed`): one more at the least after `TIMED`, and no more than `TIMED` before. 0: before the first.
    """

    def needed(total: int) -> float:
        evaluations = 0 if every is None else -(-total // every) - made // every
        return (total - made) * update + evaluations * evaluation

    least = TIMED + 1 if made == TIMED else max(LEAST, made)
    most = TIMED if 0 < made < TIMED else updates.total
    low, high = min(least, updates.total), min(most, updates.total)
    while low < high:  # the most that fit, by bisection: more updates never need less time
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= seconds else (low, middle - 1)
    return low


def warmup_of(train: TrainSection, total: int) -> int:
    """Updates during which the learning rate rises from 0: never all of them, as a single one would train nothing."""
    return 0 if train.lr_scheduler_type == "constant" else min(math.ceil(train.warmup_ratio * total), total - 1)


def learning_rate(train: TrainSection, updates: Updates, update: int) -> float:
    """The rate that update number `update` (from 0) is made with, as transformers' schedules compute it."""
    total, warmup = updates.total, updates.warmup
    if updates.planned is not None and update < updates.timed:
        total, warmup = updates.planned, warmup_of(train, updates.planned)
    if update < warmup:
        return train.learning_rate * update / max(1, warmup)
    left = max(1, total - warmup)
    progress = (update - warmup) / left
    match train.lr_scheduler_type:
        case "cosine":
            factor = max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        case "linear":
            factor = max(0.0, (total - update) / left)
        case _:
            factor = 1.0
    return train.learning_rate * factor
