"""Whole runs of a tiny model, and what they leave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.runs import RunFolder
from toolkit.training.run import run


def losses(folder: RunFolder) -> list[float]:
    return [row["loss"] for row in read_jsonl(folder.metrics) if "loss" in row]


def train(recipe: Path, out: Path, *overrides: str) -> RunFolder:
    return run(load(recipe, overrides), out)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "toolkit", *arguments]


def tensors(folder: RunFolder) -> dict[str, Any]:
    return load_file(folder.adapter / "adapter_model.safetensors")
