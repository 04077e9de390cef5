"""The loss of a micro-batch: the method's, or TRL's where the method leaves it to that."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from toolkit.training.methods.base import Method
from toolkit.training.mixins import TrainerMixin


class MethodLoss(TrainerMixin):
    """`compute_loss` asks the method first."""

    method: Method

    @override
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = self.method.loss(self.model, inputs, num_items_in_batch)
        if loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss
