"""Whole runs of a tiny model, and what they leave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.tiny import write_recipe
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.runs import RunFolder
from toolkit.training.run import run


def short_recipe(folder: Path, base: Path) -> Path:
    """A recipe over 40 short chats: 8 chats an update, 4 + 1 updates an epoch."""
    return write_recipe(
        folder,
        base,
        40,
        lora={"lora_dropout": 0.0},
        train={
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "gradient_checkpointing": False,
        },
        eval={"eval_steps": 4, "early_stopping_patience": 0},
    )


def losses(folder: RunFolder) -> list[float]:
    return [row["loss"] for row in read_jsonl(folder.metrics) if "loss" in row]


def train(recipe: Path, out: Path, *overrides: str) -> RunFolder:
    return run(load(recipe, overrides), out)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "toolkit", *arguments]


def tensors(folder: RunFolder) -> dict[str, Any]:
    return load_file(folder.adapter / "adapter_model.safetensors")
