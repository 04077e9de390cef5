"""The trainer: TRL's SFTTrainer over the token table, with a mixin for each thing that is done in another way.

Import it once an engine has been chosen (`toolkit.engines.choose`): SFTTrainer is another class after Unsloth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTTrainer
from typing_extensions import override

from toolkit.ranks import here
from toolkit.training.gradient_checkpointing import CheckpointFirst
from toolkit.training.methods.base import Method
from toolkit.training.mixins.compute_loss import MethodLoss
from toolkit.training.mixins.deferred_logging import DeferredLogging
from toolkit.training.mixins.eval_loss import EvalLoss
from toolkit.training.mixins.lr_scheduler import FittedSchedule
from toolkit.training.mixins.memory_cuts import MemoryCuts
from toolkit.training.mixins.packed_batches import PackedBatches
from toolkit.training.mixins.save_checkpoint import WholeCheckpoints
from toolkit.training.packing import KnownLengths, PackingCollator
from toolkit.training.sft_config import sft_config
from toolkit.training.shared_time import SharedTime


class Trainer(
    MemoryCuts, DeferredLogging, PackedBatches, MethodLoss, EvalLoss, FittedSchedule, WholeCheckpoints, SFTTrainer
):
    """Trains what `method` was prepared with; checkpoints go to `output`.

    An adapter is held in fp32: TRL casts QLoRA's to bf16, which fp16 loss scaling can't take.
    """

    def __init__(self, method: Method, output: Path, callbacks: Sequence[TrainerCallback]) -> None:
        self.method, self.prepared, self.updates = method, method.prepared, method.prepared.updates
        self.saving_in = output
        loaded, tables, budget = self.prepared.loaded, self.prepared.tables, self.prepared.budget
        self.shared = SharedTime(cuda=self.prepared.cuda) if here().size > 1 else None
        collator = method.collator()
        self.fill = dict
        if isinstance(collator, PackingCollator) and self.prepared.loaded.packing.known_lengths:
            self.fill = KnownLengths(collator)
        super().__init__(
            model=loaded.model,
            args=sft_config(self.prepared, output),
            processing_class=loaded.tokenizer,
            data_collator=collator,
            train_dataset=method.dataset(tables.train),
            eval_dataset=None if tables.evaluation is None else method.dataset(tables.evaluation),
            callbacks=list(callbacks),
        )
        # scaled gradients and padded batches make the host wait for the card in each update anyway
        self.ahead = self.prepared.cuda and budget is not None and not self.args.fp16
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if budget is not None and budget.checkpointed is not None:
            self.add_callback(CheckpointFirst(budget.checkpointed))
        if isinstance(self.model, PeftModel):
            for parameter in self.model.parameters():
                if parameter.requires_grad and parameter.dtype != torch.float32:
                    parameter.data = parameter.data.to(torch.float32)

    @override
    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # transformers' own count knows neither adapters nor packed rows; the planner has one

    @override
    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The run folder says what a card would say."""
