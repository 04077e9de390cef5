"""The loop that docs/sft_loop.py shows is the training of `toolkit run`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.tiny import write_recipe
from toolkit.data.table import build
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.training.run import run

LOOP = Path(__file__).parents[2] / "docs" / "sft_loop.py"


@pytest.mark.parametrize("micro_batch", [pytest.param("fixed", marks=pytest.mark.endurance), "auto"])
def test_the_loop_gets_the_losses_of_a_run(tmp_path: Path, tiny_model: Path, cache: Path, micro_batch: str) -> None:
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    recipe = load(
        write_recipe(
            tmp_path,
            tiny_model,
            40,
            lora={"lora_dropout": 0.0},
            train={**settings, "gradient_checkpointing": False, "micro_batch": micro_batch},
            eval={"early_stopping_patience": 0},
        )
    )
    made = run(recipe, tmp_path / "run")
    wanted = [row["loss"] for row in read_jsonl(made.metrics) if "loss" in row]
    table = build(recipe.recipe, tiny_model, "train")
    train = runpy.run_path(str(LOOP))["train"]
    lora = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "bias": "none"}
    found = train(
        tiny_model, table.folder, tmp_path / "adapter", epochs=2, chats_an_update=8, rate=5e-3, seed=42, lora=lora
    )
    assert len(found) == 10 and found == pytest.approx(wanted, rel=1e-4)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (made.adapter, tmp_path / "adapter"))
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-3
