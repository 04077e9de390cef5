"""Checkpoints that are whole or not there, and carry what the run adds (`toolkit.training.checkpoints`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerState
from typing_extensions import override

from toolkit.training import checkpoints
from toolkit.training.disk_full import checkpoint_bytes, saving
from toolkit.training.mixins import TrainerMixin


class WholeCheckpoints(TrainerMixin):
    """`carry` adds to the folder of a checkpoint."""

    saving_in: Path  # where checkpoints go; another place while one is not whole yet
    carry: Callable[[Path], None] | None = None

    @override
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        target = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        needed = checkpoint_bytes(self.model, self.optimizer)
        with saving(target, needed, "a checkpoint"), checkpoints.writing(target, self.carry) as self.saving_in:
            super()._save_checkpoint(model, trial)
        self.saving_in = target.parent
        checkpoints.drop_old(target.parent, self.args.save_total_limit)

    @override
    def _get_output_dir(self, trial: Any) -> str:
        return str(self.saving_in)

    def take(self, checkpoint: Path) -> None:
        """The weights and the state of a checkpoint after which nothing is left to train.

        `train` would make one more update where the last epoch is not a whole one.
        """
        self._load_from_checkpoint(str(checkpoint))
        self.model_wrapped = self.accelerator.prepare(self.model)  # which decoding would see after training
        self.state = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE))
