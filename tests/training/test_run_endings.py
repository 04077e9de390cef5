"""Whole runs of a tiny model: what must stop a run, stops it, and what can not be run is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import write_chats
from tests.training.runs import train
from toolkit.errors import EngineError, InterruptedRun, ModelError, RunError, TrainingError
from toolkit.manifest import write_manifest
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.training.run import run


def test_early_stopping_keeps_the_best_adapter(recipe: Path, tmp_path: Path) -> None:
    result = train(
        recipe,
        tmp_path / "run",
        "train.learning_rate=0.2",
        "train.num_train_epochs=20",
        "eval.eval_steps=2",
        "eval.early_stopping_patience=2",
    )
    evals = {row["update"]: row["eval_loss"] for row in read_jsonl(result.metrics) if "eval_loss" in row}
    summary = json.loads(result.summary.read_text())
    assert summary["stopped_early"]
    assert summary["updates"] < 100
    trained = {update: loss for update, loss in evals.items() if update}
    if summary["adapter_of_update"] != summary["updates"]:
        assert trained[summary["adapter_of_update"]] == min(trained.values())


def test_an_adapter_that_is_no_better_than_none_is_said_to_be(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the best of those trained all the same, and not the last."""
    told = (
        "note no evaluation had a better loss than the model before training: the adapter is the best of those that "
        "were evaluated, and by this measure no better than none"
    )
    for rate, worse in (("0.9", True), ("1e-3", False)):
        settings = [f"train.learning_rate={rate}", "train.warmup_ratio=0", "train.max_steps=4", "eval.eval_steps=1"]
        result = train(recipe, tmp_path / rate, *settings, "eval.early_stopping_patience=3")
        evals = [row["eval_loss"] for row in read_jsonl(result.metrics) if "eval_loss" in row]
        assert (min(evals) == evals[0]) is worse, evals
        assert (told in " ".join(capsys.readouterr().out.split())) is worse
        kept = json.loads(result.summary.read_text())["adapter_of_update"]
        assert evals[kept] == min(evals[1:])
        assert not worse or kept < len(evals) - 1, evals


def test_nan_stops_the_run(recipe: Path, tmp_path: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"loss is nan before the first update(.|\n)*kept: "):
        train(recipe, tmp_path / "run", f"model.name={broken}")


def test_a_folder_that_exists_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"exists already; name another with --out$"):
        train(recipe, taken)
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


def test_a_checkpoint_of_another_recipe_is_refused(recipe: Path, tmp_path: Path) -> None:
    first = train(recipe, tmp_path / "first", "train.max_steps=2")
    first.summary.unlink()
    with pytest.raises(RunError) as caught:
        run(load(recipe, ["train.max_steps=2", "train.learning_rate=1e-4", "lora.r=8"]), resume=first.path)
    text = str(caught.value)
    assert "train.learning_rate = 0.0001, but" in text and "lora.r = 8, but" in text and "trained with 4" in text


def test_a_run_over_other_data_is_not_resumed(recipe: Path, tmp_path: Path) -> None:
    first = train(recipe, tmp_path / "first", "train.max_steps=2")
    first.summary.unlink()
    write_chats(tmp_path / "chats.jsonl", 40, seed=1)
    with pytest.raises(RunError, match=r"training data.* has changed since this run began"):
        run(load(recipe, ["train.max_steps=2"]), resume=first.path)


def test_a_checkpoint_s_pickles_run_nothing(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "ran"), "w"))

    first = train(recipe, tmp_path / "first", "train.max_steps=4", "train.save_steps=2")
    first.summary.unlink()
    shutil.rmtree(first.checkpoints / "checkpoint-4")
    checkpoint = first.last_checkpoint()
    assert checkpoint is not None
    (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(Evil()))
    write_manifest(checkpoint)  # whole, and yet not to be read
    with pytest.raises(RunError, match="can't be read as numbers alone"):
        run(load(recipe, ["train.max_steps=4", "train.save_steps=2"]), resume=first.path)
    (checkpoint / "adapter_model.safetensors").rename(checkpoint / "adapter_model.bin")
    write_manifest(checkpoint)
    # weights that are a pickle are no weights: the checkpoint is passed over
    run(load(recipe, ["train.max_steps=4", "train.save_steps=2"]), resume=first.path)
    assert not (tmp_path / "ran").exists()


def test_resume_of_nothing(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        run(load(recipe), resume=tmp_path / "nowhere")


def test_ctrl_c_before_training_says_what_is_kept(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    begun = train(recipe, tmp_path / "begun", "train.max_steps=2")
    monkeypatch.setattr("toolkit.training.run.load_model", interrupted)
    with pytest.raises(InterruptedRun, match=r"^stopped before training: no run folder was written; the same command"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    begun.summary.unlink()
    shutil.rmtree(begun.adapter)
    before = sorted(begun.path.rglob("*"))
    with pytest.raises(InterruptedRun, match=r"^stopped before training: the run is as it was; the same command"):
        run(load(begun.recipe), resume=begun.path)
    assert sorted(begun.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.engine=unsloth", "needs a CUDA GPU"),
        ("train.fp16=true", "needs a CUDA GPU"),
        ("train.optim=adamw_8bit", r"needs a CUDA GPU.*--set train.optim=adamw_torch_fused"),
    ],
)
def test_gpu_only_settings_without_a_gpu(recipe: Path, tmp_path: Path, setting: str, message: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    out = tmp_path / "run"
    with pytest.raises(EngineError, match=message):
        train(recipe, out, setting)
    assert not out.exists()


def test_a_tracker_that_is_not_installed(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(EngineError, match=r"train.report_to: trackio is not installed; pip install trackio"):
        train(recipe, tmp_path / "run", 'train.report_to=["trackio"]')


def test_a_model_that_does_not_load_leaves_no_folder(recipe: Path, tmp_path: Path, tiny_model: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"does not load"):
        train(recipe, tmp_path / "run", f"model.name={broken}")
    assert not (tmp_path / "run").exists()


def test_memory_of_the_machine_that_runs_out_is_told_alike() -> None:
    from toolkit.recipe.schema import Recipe
    from toolkit.training.out_of_memory import out_of_memory

    with pytest.raises(TrainingError) as caught, out_of_memory(Recipe()):
        torch.empty(10**15)
    assert str(caught.value).startswith("not enough memory (3,725,290.3 GiB more were asked for). Try --set")
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(Recipe()):
        raise RuntimeError("shapes")


@pytest.mark.parametrize(
    ("settings", "advised", "not_advised"),
    [
        ({"micro_batch": "auto", "gradient_checkpointing": False}, "gradient_checkpointing=auto, ", "device_train"),
        ({"micro_batch": "auto", "gradient_checkpointing": "auto"}, "gradient_checkpointing=true, ", "device_train"),
        ({"micro_batch": 4096}, "a smaller train.micro_batch", "gradient_checkpointing"),
        ({}, "per_device_train_batch_size=2 --set train.gradient_accumulation_steps=8", "micro_batch"),
        ({"per_device_train_batch_size": 1}, "load_in_4bit=true", "micro_batch"),
    ],
)
def test_out_of_memory_says_what_is_left_to_try(settings: dict[str, Any], advised: str, not_advised: str) -> None:
    from toolkit.recipe.schema import Recipe, TrainSection
    from toolkit.training.out_of_memory import out_of_memory

    with pytest.raises(TrainingError) as caught, out_of_memory(Recipe(train=TrainSection(**settings))):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
    assert advised in str(caught.value) and not_advised not in str(caught.value)
