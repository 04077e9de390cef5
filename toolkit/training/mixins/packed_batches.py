"""An update's chats as packed micro-batches: one batch of the loader is an update, and holds them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from typing_extensions import override

from toolkit.errors import TrainingError
from toolkit.training.methods.base import Method
from toolkit.training.mixins import TrainerMixin
from toolkit.training.packing import MICRO_BATCHES
from toolkit.training.prepared import Prepared


class PackedBatches(TrainerMixin):
    """Trains on all micro-batches of an update where they are packed, and counts real tokens in any case.

    `fill`: what is done to an update before it is trained on (`toolkit.training.packing.KnownLengths`).
    """

    prepared: Prepared
    method: Method
    fill: Callable[[dict[str, Any]], dict[str, Any]]
    real_tokens = 0  # of all updates that were begun
    settled = False  # all modules have been put into training mode

    @override
    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        if self.prepared.budget is not None:
            whole = [self.fill(update) for update in itertools.islice(epoch_iterator, num_batches)]
            self.real_tokens += sum(update.pop("real_tokens") for update in whole)
            # filled in by the card: a copy of a number makes the host wait
            return whole, torch.full((), sum(update.pop("trained") for update in whole), device=device)
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches and items is None:
            raise TrainingError(
                "the trained tokens of an update were not counted, so its loss would depend on how it is cut into "
                "micro-batches; the versions installed are not the tested ones: see `toolkit doctor`"
            )
        for batch in batches:
            self.real_tokens += batch.pop("real_tokens", 0)
        if batches:
            items = torch.stack([self.method.items(batch) for batch in batches]).sum()
        return batches, items

    @override
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        step = super().training_step
        if MICRO_BATCHES not in inputs:
            return step(model, inputs, num_items_in_batch)
        if not (self.settled and model.training):  # a new model says so of its wrapper alone
            model.train()
            self.settled = True
        with self.prepared.loaded.packing.training(self.model), without_train(model):
            return torch.stack([step(model, one, num_items_in_batch) for one in inputs[MICRO_BATCHES]]).sum()


@contextlib.contextmanager
def without_train(model: Any) -> Iterator[None]:
    """transformers puts a model into training mode at each micro-batch: a walk over all modules, while a GPU waits."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train
