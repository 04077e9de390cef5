"""One stretch of training: from a model and its data to an adapter, its evaluation and a summary."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toolkit import engines
from toolkit.cache import write_text
from toolkit.errors import InterruptedRun, TrainingError
from toolkit.manifest import sha256_of
from toolkit.planning.budget import Budget
from toolkit.planning.steps import Updates
from toolkit.recipe import dump
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object, read_rows, write_json
from toolkit.runs import RunFolder
from toolkit.training.checkpoints import carried
from toolkit.training.completion import save_adapter
from toolkit.training.disk_full import writing_to
from toolkit.training.out_of_memory import out_of_memory
from toolkit.training.record import Tables
from toolkit.training.resume import Resumed
from toolkit.trusted import check_adapter, only_numbers

if TYPE_CHECKING:
    from toolkit.data.render import Renderer
    from toolkit.evaluation.evaluate import Evaluation
    from toolkit.training.timing import Fit, TimeBudget


@dataclass(slots=True)
class Session:
    """Everything that happens once model and data are there."""

    recipe: Recipe
    folder: RunFolder
    console: Console
    loaded: engines.Loaded
    renderer: Renderer
    tables: Tables
    updates: Updates
    model_folder: Path
    adapt_threads: bool
    on_cpu: bool
    budget: Budget | None

    def go(self, *, resumed: Resumed | None, command: str) -> None:
        """Train and leave adapter/, evaluation/ and summary.json. `command` is what goes on with this run.

        Raises `TrainingError` when training went wrong and `InterruptedRun` when the user stopped it.
        """
        from toolkit.reports.live import LiveReader
        from toolkit.reports.log import Facts
        from toolkit.training.call_metrics import CallMeter
        from toolkit.training.callbacks import (
            EarlyStopping,
            EvaluateFirst,
            Guard,
            HeapTrimmer,
            MetricsWriter,
            StopOnSignal,
            ThreadKeeper,
        )
        from toolkit.training.progress import TrainingProgress
        from toolkit.training.trainer import build_trainer

        calls = CallMeter(self.recipe, self.loaded, self.renderer, self.folder, self.console, self.updates.total)
        before = calls.before()
        checkpoint = resumed.checkpoint if resumed is not None else None
        writer = MetricsWriter(self.folder.metrics)
        reader = LiveReader(Facts.of(self.recipe, self.tables.train.n_chats), self.console)
        writer.listeners.append(reader.feed)
        guard = Guard(self.recipe)
        stopping = EarlyStopping(self.recipe, self.folder.checkpoints)
        progress = TrainingProgress(writer, self.console)
        signals = StopOnSignal()

        def progress_so_far() -> dict[str, Any]:
            return {"best": stopping.best.state(), "measured": calls.measured, "skipped_updates": writer.skipped}

        keepers = [HeapTrimmer()] if self.on_cpu else []
        keepers += [ThreadKeeper()] if self.adapt_threads else []

        def told(fit: Fit) -> None:
            self._fitted(fit)
            reader.know(Facts.of(self.recipe, self.tables.train.n_chats))
            calls.last = fit.updates.total

        timed = self._time_budget(before, told)
        trainer = build_trainer(
            self.recipe,
            self.loaded,
            self.tables.train,
            self.tables.evaluation,
            self.folder.checkpoints,
            self.updates,
            [*timed, writer, guard, stopping, progress, signals, EvaluateFirst(self.updates.per_epoch), *keepers],
            measure=calls.during if self.recipe.eval.generate else None,
            token_budget=self.budget.tokens if self.budget else None,
            checkpointed=self.budget.checkpointed if self.budget else None,
            carry=carried(self.folder, lambda: dump(self.recipe), progress_so_far),
        )
        wanting: list[Any] = [*timed, writer, guard, stopping]
        for callback in wanting:
            callback.trainer = trainer
        if checkpoint is not None:
            check_adapter(checkpoint.path)
        if resumed is not None:
            self._say(f"resuming   from {checkpoint.path if checkpoint else 'the start: there is no checkpoint yet'}")
            for problem in resumed.begin(self.folder):
                self._say(f"note       {problem}: this line is left out")
            rows = list(read_rows(self.folder.metrics))
            reader.replay(rows)
            writer.skipped = guard.skipped = max((row.get("skipped_updates") or 0 for row in rows), default=0)
            trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
        if checkpoint is not None:
            decided = checkpoint.progress
            if "best" in decided:
                stopping.restore(decided["best"])
            else:
                stopping.replay(self.folder.metrics)
            measured = [row["update"] for row in rows if row.get("eval_calls") is not None]
            calls.measured = decided.get("measured", max(measured, default=None))
        # where TensorBoard and W&B put what they write
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(self.folder.path / "tensorboard"))
        os.environ.setdefault("WANDB_DIR", str(self.folder.path))
        started = time.perf_counter()
        over = checkpoint is not None and (stopping.stopped or checkpoint.update >= self.updates.total)
        try:
            numbers = only_numbers(checkpoint.path if checkpoint is not None else None)
            with signals, out_of_memory(self.recipe), writing_to(self.folder.path), numbers:
                if checkpoint is not None and over:
                    trainer.take(checkpoint.path)
                else:
                    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except TrainingError as error:
            raise TrainingError(f"{error}\n{self._kept()}") from None
        except KeyboardInterrupt:
            raise InterruptedRun(f"stopped within an update; {self._kept()}; go on with: {command}") from None
        finally:
            with contextlib.suppress(Exception):  # where the run fails, what it fails of is the thing to say
                trainer.log_waiting()
            progress.close()
        if (recorder := self.loaded.recorder) is not None:
            self.console.print(f"graphs     {recorder.told}", markup=False)
            recorder.forget()  # what comes now needs the memory for itself
        update = trainer.state.global_step
        if signals.received is not None and update < self.updates.total:
            raise InterruptedRun(f"stopped at update {update} of {self.updates.total}; saved; go on with: {command}")
        seconds = time.perf_counter() - started
        kept_update = stopping.restore_best(update)
        save_adapter(trainer.model, self.folder, self.recipe, self.model_folder, self.renderer)
        if stopping.stopped:
            self.console.print(
                f"stopped early at update {update}: {stopping.patience} evaluations without {stopping.what}",
            )
        after = calls.after(kept_update)
        self._summary(trainer, guard, stopping, kept_update, seconds, before, after)
        reader.finish()

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def _kept(self) -> str:
        return f"kept: {self.folder.last_checkpoint() or 'no checkpoint yet'} and {self.folder.metrics}"

    def _time_budget(self, before: Evaluation | None, told: Callable[[Fit], None]) -> list[TimeBudget]:
        from toolkit.training.timing import TimeBudget, decoding_seconds

        if self.recipe.train.max_minutes is None:
            return []
        decoding = decoding_seconds(self.recipe, before.settings.get("seconds", 0.0) if before else 0.0)
        tokens = int(self.tables.train.lengths.sum()) / self.updates.per_epoch
        return [TimeBudget(self.recipe, self.updates, tokens, told, decoding=decoding)]

    def _fitted(self, fit: Fit) -> None:
        """Keep the number of updates: what goes on with this run, or makes it again, must not time anything."""
        self.updates = fit.updates
        train = self.recipe.train.model_copy(update={"fitted_steps": fit.updates.total})
        self.recipe = self.recipe.model_copy(update={"train": train})
        write_text(self.folder.recipe, dump(self.recipe), durable=True)
        known = read_object(self.folder.environment) | {"recipe_sha256": sha256_of(self.folder.recipe)}
        write_json(self.folder.environment, known)
        self.console.print(f"time       {fit.line(train.max_minutes or 0.0)}")

    def _summary(
        self,
        trainer: Any,
        guard: Any,
        stopping: Any,
        kept_update: int,
        seconds: float,
        before: Evaluation | None,
        after: Evaluation | None,
    ) -> None:
        from toolkit.training.callbacks import memory_bytes

        rows = list(read_rows(self.folder.metrics))
        losses = [row["loss"] for row in rows if row.get("loss") is not None]
        evals = [(row["update"], row["eval_loss"]) for row in rows if "eval_loss" in row]
        summary = {
            "updates": trainer.state.global_step,
            "updates_planned": self.updates.total,
            "adapter_of_update": kept_update,
            "stopped_early": stopping.stopped,
            "chats": self.tables.train.n_chats,
            "real_tokens": sum(row.get("real_tokens", 0) for row in rows),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "first_eval_loss": evals[0][1] if evals else None,
            "last_eval_loss": evals[-1][1] if evals else None,
            "skipped_updates": guard.skipped,
            "seconds": round(seconds, 2),
            "peak_memory": max([memory_bytes(), *(row.get("memory", 0) for row in rows)]),
            "calls_before": before.summary() if before else None,
            "calls_after": after.summary() if after else None,
        }
        write_json(self.folder.summary, summary)
        if evals:
            self.console.print(f"eval loss  {evals[0][1]:.3f} before, {evals[-1][1]:.3f} after")
        if after is not None:
            after.render(self.console, before=before)
        self.console.print(f"adapter    {self.folder.adapter} (of update {kept_update})")
