"""One stretch of training: from a model and its data to an adapter, its evaluation and a summary.

Import it once an engine has been chosen, as the trainer.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from toolkit.data.render import Renderer
from toolkit.errors import EngineError, InterruptedRun, RankLost, TrainingError
from toolkit.evaluation import tables
from toolkit.evaluation.evaluate import Evaluation
from toolkit.files import write_text
from toolkit.hashes import sha256_of
from toolkit.planning.cuts import Cut
from toolkit.planning.decode_time import decoding_seconds
from toolkit.planning.ran_out import record
from toolkit.ranks import here
from toolkit.recipe import dump
from toolkit.records import read_object, read_rows, write_json
from toolkit.reports.live import LiveReader
from toolkit.reports.log import Facts
from toolkit.runs import RunFolder
from toolkit.training.call_metrics import CallMeter
from toolkit.training.callbacks import (
    EarlyStopping,
    EvaluateFirst,
    Guard,
    MetricsWriter,
    StopOnSignal,
    ThreadKeeper,
)
from toolkit.training.checkpoints import Checkpoint, carried
from toolkit.training.completion import save_adapter
from toolkit.training.disk_full import writing_to
from toolkit.training.memory import HeapTrimmer, memory_bytes, peak_resident
from toolkit.training.methods.base import Method
from toolkit.training.out_of_memory import out_of_memory
from toolkit.training.progress import TrainingProgress
from toolkit.training.resume import Resumed
from toolkit.training.shared_time import shared_updates
from toolkit.training.timing import Fit, TimeBudget
from toolkit.training.trainer import Trainer
from toolkit.trusted import check_adapter, only_numbers
from toolkit.words import counted


class Session:
    """Everything that happens once model and data are there."""

    def __init__(
        self, method: Method, folder: RunFolder, console: Console, renderer: Renderer, model_folder: Path
    ) -> None:
        prepared = method.prepared
        self.recipe, self.updates = prepared.recipe, prepared.updates  # both change where a time budget is fitted to
        if method.metrics and here().size > 1:
            raise EngineError(f"what this method measures ({', '.join(method.metrics)}) is not summed over ranks yet")
        self.method, self.loaded, self.tables = method, prepared.loaded, prepared.tables
        self.folder, self.console, self.renderer, self.model_folder = folder, console, renderer, model_folder
        self.calls = CallMeter(prepared, renderer, folder, console)
        self.writer = MetricsWriter(folder.metrics)
        self.reader = LiveReader(self._facts(), console)
        if here().first_one:  # which is the one that says what it finds
            self.writer.listeners.append(self.reader.feed)
        self.guard = Guard(self.recipe)
        self.stopping = EarlyStopping(self.recipe, folder.checkpoints)
        self.progress = TrainingProgress(self.writer, console)
        self.signals = StopOnSignal()

    def go(self, *, resumed: Resumed | None, command: str) -> None:
        """Train and leave adapter/, evaluation/ and summary.json. `command` is what goes on with this run.

        Raises `TrainingError` when training went wrong and `InterruptedRun` when the user stopped it.
        """
        before = self.calls.before()
        trainer = self._trainer(before)
        checkpoint = resumed.checkpoint if resumed is not None else None
        if checkpoint is not None:
            check_adapter(checkpoint.path)
        if resumed is not None:
            self._take_up(resumed, trainer)
        if checkpoint is None:
            self._begin_smaller(trainer)
        # where TensorBoard and W&B put what they write
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(self.folder.path / "tensorboard"))
        os.environ.setdefault("WANDB_DIR", str(self.folder.path))
        started = time.perf_counter()
        self._train(trainer, checkpoint, command)
        if (recorder := self.loaded.recorder) is not None:
            self.console.print(f"graphs     {recorder.told}", markup=False)
            recorder.forget()  # what comes now needs the memory for itself
        update, planned = trainer.state.global_step, self.updates.total
        if self.signals.stopping and update < planned:
            raise InterruptedRun(f"stopped at update {update} of {planned}; saved; go on with: {command}")
        seconds = time.perf_counter() - started
        kept_update = self.stopping.restore_best(update)
        if here().first_one:
            save_adapter(trainer.model, self.folder, self.recipe, self.model_folder, self.renderer)
        if self.stopping.stopped:
            patience, what = self.stopping.patience, self.stopping.what
            self.console.print(f"stopped early at update {update}: {counted(patience, 'evaluation')} without {what}")
        after = self.calls.after(kept_update)
        trained = {"updates": update, "adapter_of_update": kept_update, "seconds": round(seconds, 2)}
        if trainer.shared is not None:
            trained["shared"] = here().gather(trainer.shared.read())
        self._summary(trained, before, after)
        self.reader.finish()

    def _trainer(self, before: Evaluation | None) -> Trainer:
        """The trainer with all that goes on beside its updates; `before`: the base model's calls."""
        timed = self._time_budget(before)
        on_cpu = not self.method.prepared.cuda
        keepers = [HeapTrimmer()] if on_cpu else []
        keepers += [ThreadKeeper()] if on_cpu and not self.recipe.train.torch_threads else []
        knowing: list[Any] = [*timed, self.writer, self.guard, self.stopping]
        others = [self.progress, self.signals, EvaluateFirst(self.updates.per_epoch), *keepers]
        trainer = Trainer(self.method, self.folder.checkpoints, [*knowing, *others])
        for callback in knowing:
            callback.trainer = trainer
        self.signals.trainer = trainer
        trainer.noted = self._cut
        trainer.stopping = lambda: self.signals.received is not None
        here().copy([parameter.data for parameter in trainer.model.parameters() if parameter.requires_grad])
        trainer.measure = self.calls.during if self.recipe.eval.generate else None
        trainer.carry = carried(self.folder, lambda: dump(self.recipe), self._progress)
        return trainer

    def _cut(self, row: dict[str, Any], line: str) -> None:
        """Keep and say how micro-batches are cut from now on, and remember it for later runs."""
        self.writer.write(row)
        self._say(f"memory     {line}")
        if (case := self.method.prepared.case) is not None and here().first_one:
            with contextlib.suppress(OSError):  # a cache that can't be written costs a later run its first try
                record(case, datetime.now(UTC).date().isoformat(), row)

    def _begin_smaller(self, trainer: Trainer) -> None:
        """Begin with the cut that earlier runs like this one came to."""
        ran_out = self.method.prepared.ran_out
        if ran_out is None:
            return
        trainer.take_cut(ran_out.cut)
        self.writer.write(ran_out.cut.row(0, "start"))
        self._say(f"memory     {ran_out.told}: {ran_out.cut.whole}; `toolkit plan --forget` forgets it")

    def _progress(self) -> dict[str, Any]:
        """What a checkpoint carries of the decisions made so far."""
        best, skipped = self.stopping.best.state(), self.writer.skipped
        return {"best": best, "measured": self.calls.measured, "skipped_updates": skipped}

    def _take_up(self, resumed: Resumed, trainer: Trainer) -> None:
        """Go on from a checkpoint and the log, as if the run had never been stopped."""
        checkpoint = resumed.checkpoint
        self._say(f"resuming   from {checkpoint.path if checkpoint else 'the start: there is no checkpoint yet'}")
        for problem in here().first(lambda: resumed.begin(self.folder)):
            self._say(f"note       {problem}: this line is left out")
        rows = here().first(lambda: list(read_rows(self.folder.metrics)))
        self.reader.replay(rows)
        skipped = max((row.get("skipped_updates") or 0 for row in rows), default=0)
        self.writer.skipped = self.guard.skipped = skipped
        if checkpoint is None:
            return
        for cut in filter(None, map(Cut.of, rows)):
            trainer.take_cut(cut)
        trainer.args.eval_on_start = False
        decided = checkpoint.progress
        if "best" in decided:
            self.stopping.restore(decided["best"])
        else:
            self.stopping.replay(self.folder.metrics)
        measured = [row["update"] for row in rows if row.get("eval_calls") is not None]
        self.calls.measured = decided.get("measured", max(measured, default=None))

    def _train(self, trainer: Trainer, checkpoint: Checkpoint | None, command: str) -> None:
        path = checkpoint.path if checkpoint is not None else None
        over = checkpoint is not None and (self.stopping.stopped or checkpoint.update >= self.updates.total)
        try:
            with self.signals, out_of_memory(self.recipe), writing_to(self.folder.path), only_numbers(path):
                if path is not None and over:
                    trainer.take(path)
                else:
                    trainer.train(resume_from_checkpoint=str(path) if path else None)
        except RankLost as error:
            raise RankLost(f"{error}; {self._kept()}; go on with: {command}") from None
        except TrainingError as error:
            raise TrainingError(f"{error}\n{self._kept()}") from None
        except KeyboardInterrupt:
            raise InterruptedRun(f"stopped within an update; {self._kept()}; go on with: {command}") from None
        finally:
            with contextlib.suppress(Exception):  # where the run fails, what it fails of is the thing to say
                trainer.log_waiting()
            self.progress.close()

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def _kept(self) -> str:
        return f"kept: {self.folder.last_checkpoint() or 'no checkpoint yet'} and {self.folder.metrics}"

    def _facts(self) -> Facts:
        return Facts.of(self.recipe, self.tables.train.n_chats)

    def _time_budget(self, before: Evaluation | None) -> list[TimeBudget]:
        if self.recipe.train.max_minutes is None:
            return []
        decoding = decoding_seconds(self.recipe, before.settings.get("seconds", 0.0) if before else 0.0)
        tokens = int(self.tables.train.lengths.sum()) / self.updates.per_epoch
        return [TimeBudget(self.recipe, self.updates, tokens, self._fitted, decoding=decoding)]

    def _fitted(self, fit: Fit) -> None:
        """Keep the number of updates: what goes on with this run, or makes it again, must not time anything."""
        self.updates = fit.updates
        train = self.recipe.train.model_copy(update={"fitted_steps": fit.updates.total})
        self.recipe = self.recipe.model_copy(update={"train": train})
        if here().first_one:
            write_text(self.folder.recipe, dump(self.recipe), durable=True)
            known = read_object(self.folder.environment) | {"recipe_sha256": sha256_of(self.folder.recipe)}
            write_json(self.folder.environment, known)
        self.console.print(f"time       {fit.line(train.max_minutes or 0.0)}")
        self.reader.know(self._facts())
        self.calls.last = fit.updates.total

    def _summary(self, trained: dict[str, Any], before: Evaluation | None, after: Evaluation | None) -> None:
        """Write summary.json and say the same; `trained`: what only the trainer knows."""
        peaks, hosts = here().gather(memory_bytes()), here().gather(peak_resident())
        if not here().first_one:
            return
        rows = list(read_rows(self.folder.metrics))
        losses = [row["loss"] for row in rows if row.get("loss") is not None]
        every = self.recipe.train.logging_steps
        took = (row["seconds"] / every for row in rows if "seconds" in row)
        shared = shared_updates(trained.get("shared", ()), took)
        evals = [(row["update"], row["eval_loss"]) for row in rows if "eval_loss" in row]
        summary = {
            "updates": trained["updates"],
            "updates_planned": self.updates.total,
            "adapter_of_update": trained["adapter_of_update"],
            "stopped_early": self.stopping.stopped,
            "chats": self.tables.train.n_chats,
            "real_tokens": sum(row.get("real_tokens", 0) for row in rows),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "first_eval_loss": evals[0][1] if evals else None,
            "last_eval_loss": evals[-1][1] if evals else None,
            "skipped_updates": self.guard.skipped,
            "seconds": trained["seconds"],
            "ranks": here().size,
            "shared_updates": None if shared is None else asdict(shared),
            "peak_host_memory": max(hosts),
            "peak_memory": max([*peaks, *(row.get("memory", 0) for row in rows)]),
            "calls_before": before.summary() if before else None,
            "calls_after": after.summary() if after else None,
        }
        write_json(self.folder.summary, summary)
        if evals:
            self.console.print(f"eval loss  {evals[0][1]:.3f} before, {evals[-1][1]:.3f} after")
        if after is not None:
            tables.render(after, self.console, before)
        if shared is not None:
            self._say(f"ranks      {shared.line()}")
        self._say(f"memory     {max(hosts) / 2**30:.2f} GiB of the machine's at most")
        self.console.print(f"adapter    {self.folder.adapter} (of update {trained['adapter_of_update']})")
        if self.stopping.patience and self.stopping.best.found and not self.stopping.best.update and len(evals) > 1:
            which = "the best of those that were evaluated" if self.stopping.best.kept else "that of the last update"
            self._say(
                f"note       no evaluation had {self.stopping.what} than the model before training: the adapter is "
                f"{which}, and by this measure no better than none"
            )
