"""The evaluation loss: a mean over trained tokens, as the training loss is, not over batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from typing_extensions import override

from toolkit.ranks import here, in_turn
from toolkit.training.methods.base import Method
from toolkit.training.mixins import TrainerMixin
from toolkit.training.packing import MICRO_BATCHES
from toolkit.training.prepared import Prepared

MOST_GROUPS = 48


class EvalLoss(TrainerMixin):
    """`measure` gives more metrics for each evaluation, handed the number of updates made.

    Ranks share the batches, each of which is the same as on one, and all have the sum over all.
    """

    prepared: Prepared
    method: Method
    measure: Callable[[int], dict[str, float]] | None = None
    # mean loss of the same groups of held-out chats at every evaluation: tells a change from noise
    eval_groups: Sequence[float] = ()
    under_way = 0  # which micro-batch of a batch

    @override
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        model = self.model
        was_training = model.training
        model.eval()
        if self.prepared.loaded.recorder is not None:
            self.prepared.loaded.recorder.make_room()
        batches = in_turn(here().gather(self._held_out(self.eval_dataset if eval_dataset is None else eval_dataset)))
        total, count = sum((summed for summed, _ in batches), 0.0), sum(items for _, items in batches)
        self.eval_groups = fold_groups([(summed / max(items, 1), items) for summed, items in batches])
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_loss": total / max(count, 1)} | self.method.measured()
        if self.measure is not None:
            metrics |= self.measure(self.state.global_step)
        for values in getattr(self, "_metrics", {}).values():
            values.clear()
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _held_out(self, dataset: Any) -> list[tuple[float, int]]:
        """(summed loss, what it is summed over) of this rank's batches: every so many-th of all."""
        ranks, size = here(), self.args.per_device_eval_batch_size
        if ranks.size > 1:
            mine = range(ranks.rank * size, len(dataset), ranks.size * size)
            dataset = dataset.select([i for start in mine for i in range(start, min(start + size, len(dataset)))])
        found = []
        for batch in self.get_eval_dataloader(dataset) if len(dataset) else ():
            batch.pop("real_tokens", None)
            found.append(self.held_out_loss(self._prepare_inputs(batch)))
        return found

    def held_out_loss(self, batch: Any) -> tuple[float, int]:
        """(summed loss, what it is summed over) of a batch."""
        summed, count = 0.0, 0
        with torch.no_grad(), self.compute_loss_context_manager():
            for self.under_way, one in enumerate(batch.get(MICRO_BATCHES, [batch])):
                items = self.method.items(one)
                packed = MICRO_BATCHES in batch
                with self.prepared.loaded.packing.evaluating(self.model) if packed else contextlib.nullcontext():
                    mean = self.compute_loss(self.model, one, num_items_in_batch=items)
                summed += float(mean) * int(items)
                count += int(items)
        return summed, count


def fold_groups(batches: Sequence[tuple[float, int]]) -> list[float]:
    """Mean losses of at most `MOST_GROUPS` groups of batches, each given as (mean loss, trained tokens)."""
    groups = []
    for first in range(min(MOST_GROUPS, len(batches))):
        part = batches[first::MOST_GROUPS]
        groups.append(sum(mean * count for mean, count in part) / max(1, sum(count for _, count in part)))
    return groups
