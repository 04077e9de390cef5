"""The first updates of a run, made again by the same trainer, without a run folder. Import it as the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from toolkit.planning.cuts import Cut
from toolkit.training.methods import method_of
from toolkit.training.out_of_memory import out_of_memory
from toolkit.training.prepared import Prepared
from toolkit.training.trainer import Trainer


class FirstUpdates(TrainerCallback):
    """Stops after update `last`, saves nothing, and hands each row as metrics.jsonl has it to `seen`.

    `threads`: of a CPU, by the update that is made with them; an update that is not named has those of the one before.
    `cuts`: of micro-batches, by the update from which on they were cut so.
    """

    def __init__(
        self,
        last: int,
        threads: Mapping[int, int],
        cuts: Mapping[int, Cut],
        seen: Callable[[dict[str, Any]], None],
    ) -> None:
        self.last, self.threads, self.cuts, self.seen = last, threads, cuts, seen
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._take_cut(0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        threads = self.threads.get(state.global_step + 1, 0)
        if threads and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        self._take_cut(state.global_step + 1)

    def _take_cut(self, update: int) -> None:
        if update in self.cuts:
            self.trainer.take_cut(self.cuts[update])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = False
        if state.global_step >= self.last:
            control.should_training_stop, control.should_evaluate = True, False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = False
        if state.global_step >= self.last:
            control.should_evaluate = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and ("loss" in logs or "eval_loss" in logs):
            self.seen({**logs, "update": state.global_step})


def train_again(
    prepared: Prepared,
    work: Path,
    last: int,
    threads: Mapping[int, int],
    cuts: Mapping[int, Cut],
    seen: Callable[[dict[str, Any]], None],
) -> None:
    """Make updates 1 to `last`, with the evaluation before them. `work`: a folder for what libraries may write.

    `threads` and `cuts` as `FirstUpdates` takes them. Raises `TrainingError` where memory runs out.
    """
    first = FirstUpdates(last, threads, cuts, seen)
    trainer = first.trainer = Trainer(method_of(prepared), work, [first])
    with out_of_memory(prepared.recipe):
        trainer.train()
