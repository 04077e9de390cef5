"""An update's chats as the micro-batches of one batch of the loader, where they are packed or shared by ranks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from typing_extensions import override

from toolkit.errors import TrainingError
from toolkit.ranks import here
from toolkit.training.methods.base import Method
from toolkit.training.mixins import TrainerMixin
from toolkit.training.packing import MICRO_BATCHES
from toolkit.training.prepared import Prepared
from toolkit.training.ranks import RankShare, own_chance
from toolkit.training.shared_time import SharedTime


class PackedBatches(TrainerMixin):
    """Trains on all micro-batches of an update at once where they are packed, or on those of this rank
    (`toolkit.training.ranks`), and counts real tokens in any case.

    `fill`: what is done to an update before it is trained on (`toolkit.training.packing.KnownLengths`). `stopping`:
    whether this process was asked to stop, and `told_to_stop`, whether any rank was, as of the latest update.
    `under_way`: which micro-batch of an update is. `among_ranks` (`MemoryCuts` has it) is handed what makes this rank's
    part of an update, and returns the update's loss, with its gradients in place. `shared` is told its tokens.
    """

    prepared: Prepared
    method: Method
    data_collator: Any
    fill: Callable[[dict[str, Any]], dict[str, Any]]
    real_tokens = 0  # of all updates that were begun
    settled = False  # all modules have been put into training mode
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    told_to_stop = False
    among_ranks: Callable[[Any, Callable[[dict[str, Any]], torch.Tensor], dict[str, Any]], torch.Tensor]
    under_way = 0
    shared: SharedTime | None = None

    @override
    def get_train_dataloader(self) -> Any:
        if here().size == 1:
            return super().get_train_dataloader()
        collator = self.data_collator  # which evaluation goes on with
        padded = self.prepared.budget is None
        chats = self.prepared.recipe.train.per_device_train_batch_size if padded else None
        self.data_collator = RankShare(collator, self.method.items, chats)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    @override
    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        if self.prepared.budget is not None or here().size > 1:
            whole = [self.fill(update) for update in itertools.islice(epoch_iterator, num_batches)]
            real, trained = (sum(update.pop(name) for update in whole) for name in ("real_tokens", "trained"))
            if self.shared is not None:
                self.shared.tokens.append(real)
            real, trained = here().sums(real, trained)
            self.real_tokens += real
            # filled in by the card: a copy of a number makes the host wait
            return whole, torch.full((), trained, device=device)
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

        def own(inputs: dict[str, Any]) -> torch.Tensor:
            """The summed loss of this rank's micro-batches."""
            if here().rank:
                own_chance(self.args.seed, self.state.global_step, here().rank)
            packed = self.prepared.budget is not None
            packing = self.prepared.loaded.packing.training(self.model) if packed else contextlib.nullcontext()
            with packing, without_train(model):
                losses = []
                for self.under_way, one in enumerate(inputs[MICRO_BATCHES]):
                    losses.append(step(model, one, num_items_in_batch))
            return torch.stack(losses).sum() if losses else torch.zeros((), device=self.args.device)

        return own(inputs) if here().size == 1 else self.among_ranks(model, own, inputs)

    def meet(self, *, failed: bool) -> bool:
        """Wait for all ranks to have made their parts; returns whether one has failed to.

        Hosts do so before cards: where one has ended, no card waits for it.
        """
        asked, failures = here().sums(int(self.stopping()), int(failed))
        self.told_to_stop = asked > 0
        return failures > 0


@contextlib.contextmanager
def without_train(model: Any) -> Iterator[None]:
    """transformers puts a model into training mode at each micro-batch: a walk over all modules, while a GPU waits."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train
