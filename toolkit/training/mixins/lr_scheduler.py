"""The learning rate's schedule where a time budget (`train.max_minutes`) changes the number of updates on the way."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from toolkit.planning.steps import Updates, learning_rate
from toolkit.training.mixins import TrainerMixin
from toolkit.training.prepared import Prepared


class FittedSchedule(TrainerMixin):
    """`updates`: how many there are to be; `toolkit.training.timing.TimeBudget` sets it anew."""

    prepared: Prepared
    updates: Updates

    @override
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        train = self.prepared.recipe.train
        if train.max_minutes is None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = LambdaLR(
            self.optimizer if optimizer is None else optimizer,
            lambda update: learning_rate(train, self.updates, update) / train.learning_rate,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler
