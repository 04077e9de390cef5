"""`toolkit run`: from a recipe to a run folder with a trained adapter."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toolkit import engines, models
from toolkit.cache import require_space
from toolkit.errors import EngineError, InterruptedRun, Problem, RunError, ToolkitError, TrainingError
from toolkit.hardware import Hardware, detect, free_cores
from toolkit.planning.budget import Budget, budget_of, check_packing, recomputes
from toolkit.planning.steps import Updates, updates_of
from toolkit.recipe import LoadedRecipe, dump, load
from toolkit.recipe.schema import Recipe
from toolkit.runs import (
    RunFolder,
    check_same,
    default_folder,
    read_jsonl,
    versions,
    write_json,
)
from toolkit.training.exhausted import out_of_memory
from toolkit.training.record import Tables, describe_data, engine_lines, write_environment, write_samples

if TYPE_CHECKING:
    from toolkit.evaluation.evaluate import Evaluation


SPACE = 200_000_000  # bytes that a run folder may need


def run(loaded: LoadedRecipe, out: Path | None = None, resume: Path | None = None) -> RunFolder:
    """Train what `loaded` describes and leave a run folder.

    Raises an `InputError` before anything is written when the recipe can't run here, `TrainingError` when training
    went wrong and `InterruptedRun` when the user stopped it; the last two leave the last checkpoint in place.
    """
    console = Console(soft_wrap=True, highlight=False)
    recipe = loaded.recipe
    _check_trackers(recipe)
    if resume is not None:
        folder = RunFolder.open(resume)
        check_same(recipe, str(loaded.path), load(folder.recipe).recipe, folder)
        if folder.summary.is_file():
            raise RunError(f"{resume}: this run is finished; there is nothing to resume")
        if out is not None and out != resume:
            raise RunError("--out and --resume name different folders; --resume goes on in its own")
        target = resume
    else:
        target = out or default_folder(loaded.name)
        RunFolder.require_free(target)
    hardware = detect()
    adapt = _set_threads(recipe, hardware)
    begun_with = _begun_with(folder) if resume is not None else None
    engine, precision = engines.choose(recipe, hardware, begun_with)  # imports Unsloth first where it is the engine
    console.print(f"engine     {engine}\nprecision  {precision}", markup=False)
    if engine.note:
        console.print(f"note       {engine.note}", markup=False)
    check_packing(recipe, engine.value)

    from toolkit.data.tokenizers import load_tokenizer

    model_folder = models.resolve(recipe.model)
    if recipe.export.gguf:
        from toolkit.export.preflight import check_run

        for note in check_run(recipe, model_folder, target):
            console.print(f"note       {note}", markup=False)
    tokenizer = load_tokenizer(model_folder)
    tables = _tables(recipe, model_folder)
    if resume is not None:
        _check_data(folder, tables)
    updates = updates_of(recipe, tables.train.n_chats)
    describe_data(console, recipe, tables, updates.total)
    budget = budget_of(recipe, engine.value, precision.value, hardware, tables.train)
    if budget is not None:
        console.print(f"packing    {budget.tokens:,} tokens a micro-batch: {budget.reason}")
        if budget.checkpointing:
            console.print(f"recompute  {budget.checkpointing}")
    require_space(target, SPACE, "checkpoints and the adapter")

    started = time.perf_counter()
    with out_of_memory(recipe):
        loaded_model = engines.load(recipe, model_folder, tokenizer, engine, precision, hardware)
    _align_special_tokens(loaded_model.model, tokenizer)
    if budget is not None:
        from toolkit.training.attention import can_pack

        if (why := can_pack(loaded_model.model)) is not None:
            raise EngineError(f'train.micro_batch: this model can\'t be packed: {why}; wanted "fixed"')
    report = loaded_model.report
    report.versions = versions()
    load_seconds = time.perf_counter() - started
    console.print(engine_lines(report))
    if loaded_model.recorder is not None and budget is not None:
        some = recomputes(recipe, budget.checkpointed)
        told = "none: layers that recompute can't be recorded" if some else "each length is recorded once and replayed"
        console.print(f"graphs     {told}")
    # not before the model is there: what can't be loaded leaves no folder behind
    if resume is None:
        folder = RunFolder.create(target, dump(recipe))
    with folder.held():
        write_environment(folder, recipe, model_folder, hardware, report, tables, load_seconds)
        write_samples(folder, tables.train, tokenizer)
        session = _Session(
            recipe, folder, console, loaded_model, tables, updates, model_folder, adapt, hardware.gpu is None, budget
        )
        session.go(resuming=resume is not None, command=_again(loaded, folder))
    if recipe.export.gguf:
        # the export reads the weights again, one at a time: what training held would only be in its way
        del session, loaded_model
        _export(recipe, folder, console)
    return folder


@dataclass(slots=True)
class _Session:
    """One stretch of training: everything that happens once model and data are there."""

    recipe: Recipe
    folder: RunFolder
    console: Console
    loaded: engines.Loaded
    tables: Tables
    updates: Updates
    model_folder: Path
    adapt_threads: bool
    on_cpu: bool
    budget: Budget | None

    def go(self, *, resuming: bool, command: str) -> RunFolder:
        from toolkit.reports.live import LiveReader
        from toolkit.reports.log import Facts
        from toolkit.training.callbacks import (
            EarlyStopping,
            Guard,
            HeapTrimmer,
            MetricsWriter,
            StopOnSignal,
            ThreadKeeper,
        )
        from toolkit.training.calls import CallMeter
        from toolkit.training.progress import TrainingProgress
        from toolkit.training.trainer import build_trainer

        calls = CallMeter(self.recipe, self.loaded, self.folder, self.console, self.updates.total)
        before = calls.before()
        checkpoint = self.folder.last_checkpoint() if resuming else None
        writer = MetricsWriter(self.folder.metrics)
        reader = LiveReader(Facts.of(self.recipe, self.tables.train.n_chats), self.console)
        writer.listeners.append(reader.feed)
        guard = Guard(self.recipe)
        stopping = EarlyStopping(self.recipe, self.folder.checkpoints)
        progress = TrainingProgress(writer, self.console)
        signals = StopOnSignal()
        keepers = [HeapTrimmer()] if self.on_cpu else []
        keepers += [ThreadKeeper()] if self.adapt_threads else []
        trainer = build_trainer(
            self.recipe,
            self.loaded,
            self.tables.train,
            self.tables.evaluation,
            self.folder.checkpoints,
            self.updates,
            [writer, guard, stopping, progress, signals, *keepers],
            measure=calls.during if self.recipe.eval.generate else None,
            token_budget=self.budget.tokens if self.budget else None,
            checkpointed=self.budget.checkpointed if self.budget else None,
        )
        for callback in (writer, guard, stopping):
            callback.trainer = trainer
        if resuming:
            update = int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1
            self.folder.cut_metrics(update)
            stopping.replay(self.folder.metrics)
            rows = list(read_jsonl(self.folder.metrics))
            reader.replay(rows)
            writer.skipped = max((row.get("skipped_updates", 0) for row in rows), default=0)
            trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
            self.console.print(f"resuming   from {checkpoint or 'the start: there is no checkpoint yet'}")
        # where TensorBoard and W&B put what they write
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(self.folder.path / "tensorboard"))
        os.environ.setdefault("WANDB_DIR", str(self.folder.path))
        started = time.perf_counter()
        try:
            with signals, out_of_memory(self.recipe):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except TrainingError as error:
            kept = self.folder.last_checkpoint()
            raise TrainingError(f"{error}\nkept: {kept or 'no checkpoint yet'} and {self.folder.metrics}") from None
        finally:
            with contextlib.suppress(Exception):  # where the run fails, what it fails of is the thing to say
                trainer.log_waiting()
            progress.close()
        if (recorder := self.loaded.recorder) is not None:
            if recorder.problem:
                self.console.print(f"note       CUDA graphs were given up: {recorder.problem}", markup=False)
            recorder.forget()  # what comes now needs the memory for itself
        update = trainer.state.global_step
        if signals.received is not None and update < self.updates.total:
            raise InterruptedRun(f"stopped at update {update} of {self.updates.total}; go on with: {command}")
        seconds = time.perf_counter() - started
        kept_update = stopping.restore_best(update)
        save_adapter(trainer.model, self.folder, self.recipe, self.model_folder)
        if stopping.stopped:
            self.console.print(
                f"stopped early at update {update}: {stopping.patience} evaluations without {stopping.what}",
            )
        after = calls.after(kept_update)
        self._summary(trainer, guard, stopping, kept_update, seconds, before, after)
        reader.finish()
        self._report()
        return self.folder

    def _report(self) -> None:
        """Write report.html. The adapter is there already, so what stands in the way is only said."""
        from toolkit.reports.report import write_report

        try:
            write_report([self.folder.path], self.folder.report)
        except (OSError, ToolkitError) as error:
            self.console.print(f"report     not written: {error}", markup=False)
        else:
            self.console.print(f"report     {self.folder.report}")

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

        rows = list(read_jsonl(self.folder.metrics))
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


def _export(recipe: Recipe, folder: RunFolder, console: Console) -> None:
    """What the recipe's [export] asks for. Raises `ToolkitError` when the files are not the trained model."""
    import gc

    from toolkit.export.export import check_gate, export

    gc.collect()
    settings = recipe.export
    try:
        done = export(
            folder.path, gguf=settings.gguf, merge_base=settings.merge_base, chats=settings.chats, console=console
        )
    except ToolkitError as error:
        again = f"toolkit export {folder.path} --gguf {','.join(settings.gguf)}"
        raise ToolkitError(f"{error}\nthe run itself is finished and kept; export again with: {again}") from None
    check_gate(done)


def save_adapter(model: Any, folder: RunFolder, recipe: Recipe, model_folder: Path) -> None:
    """Write adapter/ in PEFT's format, whole or not at all, naming the base model as the recipe does."""
    import shutil

    from toolkit.training.saving import SPARE, adapter_bytes, saving

    work = folder.path / ".adapter.part"
    shutil.rmtree(work, ignore_errors=True)
    base = str(model_folder) if models.is_local(recipe.model.name) or ":" in recipe.model.name else recipe.model.name
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
        config.revision = recipe.model.revision
    try:
        with saving(work, adapter_bytes(model) + SPARE, "the adapter"):
            model.save_pretrained(work, save_embedding_layers=False)
        shutil.rmtree(folder.adapter, ignore_errors=True)
        work.rename(folder.adapter)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_trackers(recipe: Recipe) -> None:
    """Raise `EngineError` for every tracker in train.report_to that is not installed."""
    missing = [name for name in recipe.train.report_to if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(
            [Problem("", f"train.report_to: {name} is not installed; pip install {name}") for name in missing]
        )


def _set_threads(recipe: Recipe, hardware: Hardware) -> bool:
    """Choose CPU threads; returns whether they follow the machine's load, which they do unless the recipe sets them."""
    import torch

    if recipe.train.torch_threads:
        torch.set_num_threads(recipe.train.torch_threads)
    elif hardware.gpu is None:
        torch.set_num_threads(free_cores())
        return True
    return False


def _tables(recipe: Recipe, model_folder: Path) -> Tables:
    from toolkit.data.table import build

    train = build(recipe, model_folder, "train")
    wanted = bool(recipe.eval.sources) or recipe.eval.holdout > 0
    return Tables(train, build(recipe, model_folder, "eval") if wanted else None)


def _environment(folder: RunFolder) -> dict[str, Any] | None:
    """What was written when the run began; None where it came to nothing."""
    if not folder.environment.is_file():
        return None
    found: dict[str, Any] = json.loads(folder.environment.read_text(encoding="utf-8"))
    return found


def _begun_with(folder: RunFolder) -> str | None:
    """The engine of a run that is to go on: what is the fastest here may have changed since."""
    before = _environment(folder)
    return str(before["engine"]["engine"]["value"]) if before else None


def _check_data(folder: RunFolder, tables: Tables) -> None:
    """Raise `RunError` when the chats or their tokens are not those that the run began with."""
    environment = _environment(folder)
    if environment is None:
        return
    before = environment["data"]["train_table_key"]
    if before != tables.train.key:
        raise RunError(
            f"{folder.path}: the training data, tokenizer or toolkit has changed since this run began (token table "
            f"{before} then, {tables.train.key} now); that would be another run: start one with --out"
        )


def _again(loaded: LoadedRecipe, folder: RunFolder) -> str:
    """The command that goes on with this run."""
    words = ["toolkit", "run", str(loaded.path)]
    for override in loaded.overrides:
        words += ["--set", override]
    return shlex.join([*words, "--resume", str(folder.path)])


def _align_special_tokens(model: Any, tokenizer: Any) -> None:
    """The model's configs name the tokenizer's special tokens, as the trainer would make them with a warning."""
    for config in (model.config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, name, getattr(tokenizer, name))
