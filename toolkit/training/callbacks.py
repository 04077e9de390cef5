"""What goes on beside the updates: metrics.jsonl, the progress bar, early stopping, guards and signals."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from toolkit.errors import TrainingError
from toolkit.evaluation.best import best_by_log
from toolkit.evaluation.results import LOGGED
from toolkit.files import flush
from toolkit.hardware import FreeCores
from toolkit.ranks import here
from toolkit.recipe.schema import Recipe
from toolkit.records import read_rows
from toolkit.terminal import warn
from toolkit.training.checkpoints import BEST
from toolkit.training.disk_full import saving, tensor_bytes
from toolkit.training.memory import memory_bytes, with_memory


class MetricsWriter(TrainerCallback):
    """Appends a row to metrics.jsonl for each log and each evaluation, flushed at once, and hands it to `listeners`.

    Of ranks, the first writes the file; what it says of memory is of its own card. `threads`: of a CPU, which decide
    the last bits of its sums; those that the row's last update was made with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trainer: Any = None
        self.started = time.perf_counter()
        self.last = (self.started, 0)
        self.latest: dict[str, Any] = {}
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.skipped = 0
        self.threads = 0

    def write(self, row: dict[str, Any]) -> None:
        if here().first_one:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        for listener in self.listeners:
            listener(row)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.threads = torch.get_num_threads()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.fp16 and self.trainer.accelerator.optimizer_step_was_skipped:
            self.skipped += 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()
        self.last = (self.started, self.trainer.logged_tokens)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        now = time.perf_counter()
        if "eval_loss" in logs:
            row = {"update": state.global_step, "eval_loss": logs["eval_loss"]}
            if groups := getattr(self.trainer, "eval_groups", ()):
                row["eval_groups"] = [round(value, 5) for value in groups]
            if (held_out := getattr(self.trainer, "eval_dataset", None)) is not None:
                row["eval_chats"] = len(held_out)
            metrics = getattr(getattr(self.trainer, "method", None), "metrics", ())
            row |= {key: round(logs[key], 5) for key in (*LOGGED, *metrics) if key in logs}
            # time spent evaluating is not training time
            self.last = (now, self.trainer.logged_tokens)
        else:
            seconds, tokens = now - self.last[0], self.trainer.logged_tokens - self.last[1]
            row = {
                "update": state.global_step,
                "epoch": round(state.epoch or 0.0, 4),
                "loss": logs.get("loss"),
                "grad_norm": logs.get("grad_norm"),
                "learning_rate": logs.get("learning_rate"),
                "real_tokens": tokens,
                "seconds": round(seconds, 4),
                "tokens_per_second": round(tokens / seconds, 1) if seconds > 0 else None,
                "memory": memory_bytes(),
            }
            if self.threads and not torch.cuda.is_available():
                row["threads"] = self.threads
            if getattr(args, "fp16", False):
                row["skipped_updates"] = self.skipped
            self.latest = row
            self.last = (now, self.trainer.logged_tokens)
        self.write(row)


class Guard(TrainerCallback):
    """Stops a run that has gone wrong: NaN or infinite loss or gradient, or fp16 updates skipped again and again.

    Raises `TrainingError` with what to try.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.trainer: Any = None
        self.skipped_in_a_row = 0
        self.skipped = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not args.fp16:
            return
        if self.trainer.accelerator.optimizer_step_was_skipped:
            self.skipped += 1
            self.skipped_in_a_row += 1
        else:
            self.skipped_in_a_row = 0
        limit = self.recipe.train.max_skipped_steps
        if self.skipped_in_a_row >= limit:
            raise TrainingError(
                f"update {state.global_step}: {limit} fp16 updates in a row were skipped because gradients overflowed; "
                "nothing is learned. Try --set train.bf16=true --set train.fp16=false where the GPU has bfloat16, or "
                f"--set train.learning_rate={self.recipe.train.learning_rate / 2:g}"
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name)
            if value is None or math.isfinite(value):
                continue
            if name == "grad_norm" and args.fp16:
                continue  # the loss scaler skips such an update; on_step_end counts them
            if not state.global_step:
                raise TrainingError(
                    f"{name} is {value} before the first update: the model's weights hold NaN, or overflow in this "
                    "precision. Try another copy of the model, or --set train.bf16=false --set train.fp16=false"
                )
            raise TrainingError(
                f"update {state.global_step}: {name} is {value}. The last checkpoint is from before it. Try "
                f"--set train.learning_rate={self.recipe.train.learning_rate / 4:g}, a longer train.warmup_ratio, or "
                "`toolkit data check` for broken rows"
            )


class EarlyStopping(TrainerCallback):
    """Keeps the best trained adapter by `eval.best` (see `Best`), and stops when nothing was better for a while.

    `patience` counts evaluations; 0 never stops and keeps the last adapter.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.patience = recipe.eval.early_stopping_patience
        self.folder = folder
        self.trainer: Any = None
        self.best = best_by_log(recipe, ())
        self.stopped = False

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave when a checkpoint was written."""
        self.best.restore(state)
        self._judge()

    def replay(self, metrics: Path) -> None:
        """Go on from what the log tells, where a checkpoint does not."""
        self.best = best_by_log(self.recipe, read_rows(metrics))
        self._judge()

    def _judge(self) -> None:
        self.stopped = 0 < self.patience <= self.best.worse

    @property
    def what(self) -> str:
        return "more right answers" if self.best.by_calls else "a better loss"

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not self.patience or metrics is None:
            return
        better = self.best.judge(metrics, state.global_step)
        if better is not None and state.global_step and self.best.kept == state.global_step and here().first_one:
            self._keep()
        if better is False and self.best.worse >= self.patience:
            self._judge()
            control.should_training_stop = True
            control.should_save = True  # what comes after training may be killed, too

    def _keep(self) -> None:
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in self.trainer.model.named_parameters()
            if value.requires_grad
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        work = self.folder / f"{BEST}.part"
        with saving(work, tensor_bytes(tensors), "the best adapter"):
            with_memory(lambda: save_file(tensors, work, metadata={"update": str(self.best.kept)}))
        flush(work)
        work.replace(self.folder / BEST)

    def restore_best(self, last_update: int) -> int:
        """Put the adapter that is kept back into the model, of each rank; returns the update it is from."""
        kept = self.folder / BEST
        if not self.patience or not self.best.kept or self.best.kept == last_update:
            return last_update
        if not here().first(kept.is_file):
            return last_update
        trained = {name: value for name, value in self.trainer.model.named_parameters() if value.requires_grad}
        with torch.no_grad():
            if here().first_one:
                tensors = load_file(kept)
                for name, value in trained.items():
                    value.copy_(tensors[name].to(value.device))
            here().copy(list(trained.values()))
        return self.best.kept


class ThreadKeeper(TrainerCallback):
    """On a CPU, uses as many threads as there are cores that other processes leave free, update by update."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.cores = FreeCores()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        free = self.cores.look()
        if free is not None and free != torch.get_num_threads():
            torch.set_num_threads(free)


class StopOnSignal(TrainerCallback):
    """SIGINT and SIGTERM finish the update, save a checkpoint and stop; a second SIGINT stops at once.

    Ranks stop together, after the update in which all have heard that one was asked to: `trainer` says so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.trainer: Any = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if here().size == 1:
            warn(f"\n{self.received.name}: saving a checkpoint after this update")

    @property
    def stopping(self) -> bool:
        """Whether training stops after this update."""
        return self.received is not None if here().size == 1 else bool(self.trainer.told_to_stop)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopping:
            if here().size > 1:
                name = "asked to stop" if self.received is None else self.received.name
                warn(f"\n{name}: saving a checkpoint, all {here().size} ranks after update {state.global_step}")
            control.should_save = True
            control.should_training_stop = True


class EvaluateFirst(TrainerCallback):
    """Where evaluations come at an epoch's end, has a checkpoint of its last update wait for the evaluation.

    Saved before it, a run that goes on from there would miss the evaluation, and the random numbers it takes. A run
    that is stopped within an epoch is not evaluated, as it is not when it is left alone. Comes after `StopOnSignal`.
    """

    def __init__(self, per_epoch: int) -> None:
        self.per_epoch = per_epoch
        self.waits = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.eval_strategy != "epoch":
            return
        ends = state.global_step % self.per_epoch == 0 or state.global_step >= state.max_steps
        if ends and control.should_save:
            control.should_save, self.waits = False, True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        within = state.global_step % self.per_epoch != 0 and state.global_step < state.max_steps
        if self.waits:
            control.should_save, self.waits = True, False
        elif within and args.eval_strategy == "epoch":
            control.should_evaluate = control.should_save = False
