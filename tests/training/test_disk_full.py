"""A full disk is said as one, with what is needed and free, and leaves no half-made checkpoint behind."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from tests.tiny import write_recipe
from toolkit.errors import TrainingError
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.runs import RunFolder
from toolkit.training.disk_full import SPARE, checkpoint_bytes, saving
from toolkit.training.run import run

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 3818112 vs 3818004"),  # torch.save
]


def half_made(target: Path, error: Exception) -> None:
    target.mkdir(exist_ok=True)
    (target / "trainer_state.json").write_text("{")
    raise error


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_each_librarys_way_to_say_it(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "checkpoint-2"
    told = r"takes about 3\.0 MB, [\d,.]+ MB are free.*--resume"
    with pytest.raises(TrainingError, match=told), saving(target, 3_000_000, "a checkpoint"):
        half_made(target, error)
    assert not target.exists()


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("shapes differ")])
def test_other_errors_are_not_a_full_disk(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error.args[-1])), saving(tmp_path / "x", 1, "a checkpoint"):
        half_made(tmp_path / "x", error)


def test_nothing_is_written_where_it_can_not_fit(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with (
        pytest.raises(TrainingError, match="no disk space for a checkpoint"),
        saving(tmp_path / "x", 2 * free, "a checkpoint"),
    ):
        pytest.fail("the block must not begin")
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(TrainingError), saving(tmp_path / "x", 1, "a checkpoint"):
        half_made(tmp_path / "x", FULL[0])
    assert (tmp_path / "x" / "trainer_state.json").exists()


def test_a_checkpoint_is_the_adapter_and_the_optimizers_states() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 5, bias=False))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model[1].parameters())
    model(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert 4 * 50 * 3 <= checkpoint_bytes(model, optimizer) - SPARE <= 4 * 50 * 3 + 8
    assert checkpoint_bytes(model, None) == 4 * 50 + SPARE


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    train = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    return write_recipe(
        tmp_path,
        tiny_model,
        20,
        lora={"lora_dropout": 0.0},
        train=train,
        eval={"holdout": 0, "early_stopping_patience": 0},
    )


def disk_that_fills(at: str, save: Callable[..., Any]) -> Callable[..., Any]:
    """torch.save, but files below a folder named `at` end after some bytes."""

    def saved(value: Any, file: Any, *rest: Any, **more: Any) -> None:
        if at in str(file):
            Path(file).write_bytes(b"half")
            raise FULL[3]
        save(value, file, *rest, **more)

    return saved


def test_the_last_good_checkpoint_stays_and_training_goes_on_from_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = run(load(recipe), tmp_path / "through")
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", disk_that_fills("checkpoint-4", torch.save))
        with pytest.raises(TrainingError) as caught:
            run(load(recipe), out)
    folder = RunFolder(out)
    assert "no disk space for a checkpoint" in str(caught.value)
    assert f"kept: {folder.checkpoints / 'checkpoint-2'}" in str(caught.value)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["checkpoint-2"]

    resumed = run(load(recipe), resume=out)
    losses = [[row["loss"] for row in read_jsonl(one.metrics) if "loss" in row] for one in (through, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_disk_too_small_for_the_first_checkpoint(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.training.disk_full.free_bytes", lambda path: 1_000_000)
    with pytest.raises(TrainingError, match=r"1\.0 MB are free(.|\n)*kept: no checkpoint yet"):
        run(load(recipe), tmp_path / "out")
    assert not list((tmp_path / "out" / "checkpoints").glob("checkpoint-*"))
