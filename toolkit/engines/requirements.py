"""What settings demand of a machine, whatever the engine."""

from __future__ import annotations

from toolkit.engines.base import is_installed
from toolkit.errors import EngineError, Problem
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe


def check_hardware(recipe: Recipe, hardware: Hardware) -> None:
    """Raise one `EngineError` that names every setting which only works on a CUDA GPU, when there is none."""
    if hardware.gpu is not None:
        return
    only_gpu = {
        "train.optim": recipe.train.optim in ("adamw_8bit", "paged_adamw_8bit") and recipe.train.optim,
        "train.gradient_checkpointing": recipe.train.gradient_checkpointing == "unsloth" and "unsloth",
        "model.attn_implementation": recipe.model.attn_implementation == "flash_attention_2" and "flash_attention_2",
        "train.fp16": recipe.train.fp16 and "true",
    }
    instead = {
        "train.optim": "adamw_torch_fused",
        "train.gradient_checkpointing": "true",
        "model.attn_implementation": "sdpa",
        "train.fp16": "false",
    }
    problems = [
        Problem("", f"{key} = {value} needs a CUDA GPU and there is none here; --set {key}={instead[key]}")
        for key, value in only_gpu.items()
        if value
    ]
    if problems:
        raise EngineError(problems)


def check_installed(recipe: Recipe) -> None:
    """Raise one `EngineError` that names every package which a setting needs and which is not there."""
    wanted = []
    if recipe.model.load_in_4bit:
        wanted.append(("model.load_in_4bit", "true", "bitsandbytes"))
    if recipe.train.optim in ("adamw_8bit", "paged_adamw_8bit"):
        wanted.append(("train.optim", recipe.train.optim, "bitsandbytes"))
    problems = [
        Problem("", f"{key} = {value} needs {package}, which is not installed: pip install {package}")
        for key, value, package in wanted
        if not is_installed(package)
    ]
    if problems:
        raise EngineError(problems)
