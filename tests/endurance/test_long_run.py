"""A run of 100,000 updates leaves flat memory, small checkpoints and a small page: real callbacks, updates left out.

`pytest -m endurance tests/endurance/test_long_run.py` prints what it measured; it takes some minutes.
"""

from __future__ import annotations

import io
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from tests.reports.folders import make_run
from tests.tiny import write_recipe
from toolkit.recipe import load
from toolkit.reports.live import LiveReader
from toolkit.reports.log import Facts
from toolkit.reports.report import write_report
from toolkit.runs import RunFolder, recipe_of
from toolkit.terminal import new_console
from toolkit.training.callbacks import Guard, MetricsWriter
from toolkit.training.mixins.deferred_logging import HISTORY
from toolkit.training.mixins.packed_batches import PackedBatches
from toolkit.training.progress import TrainingProgress
from toolkit.training.run import run

MIB = 2**20


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def long_log(folder: RunFolder, updates: int) -> list[int]:
    """Write a log by what goes on beside the updates of a run; returns resident bytes at each tenth."""
    folder.metrics.unlink()
    quiet = new_console(file=io.StringIO())
    facts = Facts(total=updates, warmup=updates // 20, per_epoch=updates // 3, learning_rate=1e-3, logging_steps=1)
    writer, guard, reader = MetricsWriter(folder.metrics), Guard(recipe_of(folder)), LiveReader(facts, quiet)
    writer.listeners.append(reader.feed)
    trainer = SimpleNamespace(logged_tokens=0)
    writer.trainer = guard.trainer = trainer
    beside: list[Any] = [writer, guard, TrainingProgress(writer, quiet)]
    args, control = SimpleNamespace(fp16=False), SimpleNamespace()
    state = SimpleNamespace(global_step=0, epoch=0.0, max_steps=updates)
    draw, seen = random.Random(0), []
    for update in range(1, updates + 1):
        for callback in beside:
            callback.on_step_begin(args, state, control)
        state.global_step, state.epoch = update, 3 * update / updates
        trainer.logged_tokens += 3000 + draw.randrange(500)
        loss = 3 * 0.99995**update + 0.2 * draw.random()
        logs = [{"loss": loss, "grad_norm": 0.5 + 0.2 * draw.random(), "learning_rate": 1e-3 * (1 - update / updates)}]
        if update % (updates // 50) == 0:
            logs.append({"eval_loss": loss + 0.1})
        for callback in beside:
            callback.on_step_end(args, state, control)
        for values in logs:
            for callback in beside:
                callback.on_log(args, state, control, logs=values)
        if update % (updates // 10) == 0:
            seen.append(resident())
    reader.finish()
    return seen


@pytest.mark.endurance
def test_a_hundred_thousand_updates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run")
    began = time.process_time()
    memory = long_log(folder, 100_000)
    logged, began = time.process_time() - began, time.process_time()
    write_report([folder.path])
    written = time.process_time() - began
    grown, page = memory[-1] - memory[0], folder.report.stat().st_size
    with capsys.disabled():
        print(
            f"\n100,000 updates: {grown / MIB:.0f} MiB more resident at the end than after a tenth, a log of "
            f"{folder.metrics.stat().st_size / 1e6:.0f} MB, a page of {page / 1e6:.2f} MB; CPU time: "
            f"{1e6 * logged / 100_000:.0f} us an update beside it, {written:.1f} s for the page"
        )
    assert grown < 64 * MIB and page < 5_000_000


@pytest.mark.endurance
def test_checkpoints_and_memory_of_a_long_run_do_not_grow(
    tmp_path: Path, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer itself, of which only forward and backward are left out."""
    updates = 3 * HISTORY
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        24,
        lora={"lora_dropout": 0.0, "r": 1},
        train={
            "max_steps": updates,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "save_steps": updates // 3,
        },
        eval={"holdout": 0, "early_stopping_patience": 0},
    )
    memory, sizes = [], []

    def training_step(self: Any, model: Any, inputs: Any, items: Any = None) -> torch.Tensor:
        if self.state.global_step % (updates // 6) == 0:
            memory.append(resident())
            sizes.append(len(self.state.log_history))
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, 1e-3)
        return torch.tensor(3.0 * 0.9999**self.state.global_step)

    monkeypatch.setattr(PackedBatches, "training_step", training_step)
    made = run(load(recipe), tmp_path / "run")
    last = made.last_checkpoint()
    assert last is not None and (last / "trainer_state.json").stat().st_size < 400 * 2 * HISTORY
    assert max(sizes) <= 2 * HISTORY and made.metrics.read_text().count("\n") == updates
    assert memory[-1] - memory[1] < 16 * MIB
