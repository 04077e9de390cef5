"""Checkpoints that are whole or not there, and carry what the run adds (`toolkit.training.checkpoints`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from typing_extensions import override

from toolkit.errors import TrainingError
from toolkit.ranks import here
from toolkit.training import checkpoints
from toolkit.training.disk_full import checkpoint_bytes, saving
from toolkit.training.memory import with_memory
from toolkit.training.mixins import TrainerMixin


class WholeCheckpoints(TrainerMixin):
    """`carry` adds to the folder of a checkpoint. Of ranks, the first writes it."""

    saving_in: Path  # where checkpoints go; another place while one is not whole yet
    carry: Callable[[Path], None] | None = None

    @override
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._check_same()
        if not here().first_one:
            return
        target = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        needed = checkpoint_bytes(self.model, self.optimizer)

        def save() -> None:
            with saving(target, needed, "a checkpoint"), checkpoints.writing(target, self.carry) as self.saving_in:
                super(WholeCheckpoints, self)._save_checkpoint(model, trial)

        try:
            with_memory(save)
        finally:
            self.saving_in = target.parent
        checkpoints.drop_old(target.parent, self.args.save_total_limit)

    @override
    def _get_output_dir(self, trial: Any) -> str:
        return str(self.saving_in)

    def _check_same(self) -> None:
        """Raise `TrainingError` where ranks, which all make the same updates, have come to hold other adapters."""
        if here().size == 1:
            return
        with torch.no_grad():
            total = sum(p.double().sum() for p in self.model.parameters() if p.requires_grad)
        found = here().gather(float(total))
        for rank, sum_there in enumerate(found):
            if sum_there != found[0] and found[0] == found[0]:
                raise TrainingError(
                    f"update {self.state.global_step}: rank {rank} holds another adapter than rank 0 (its numbers sum "
                    f"to {sum_there!r} and {found[0]!r}), so a card or its memory computes wrongly; nothing was saved"
                )

    def take(self, checkpoint: Path) -> None:
        """The weights and the state of a checkpoint after which nothing is left to train.

        `train` would make one more update where the last epoch is not a whole one.
        """
        self._load_from_checkpoint(str(checkpoint))
        self.model_wrapped = self.accelerator.prepare(self.model)  # which decoding would see after training
        self.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))
