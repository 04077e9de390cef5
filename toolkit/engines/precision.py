"""bf16, fp16 or fp32, and the dtype of frozen weights: the same for every engine."""

from __future__ import annotations

from toolkit.engines.base import Choice
from toolkit.errors import EngineError
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe


def choose_precision(recipe: Recipe, hardware: Hardware) -> Choice:
    """bf16, fp16 or fp32 for the matrix products; adapters and optimizer states stay fp32.

    Raises `EngineError` where the hardware can't do what the recipe asks.
    """
    train, dtype = recipe.train, recipe.model.dtype
    gpu = hardware.gpu
    if train.fp16:
        if gpu is None:
            raise EngineError("train.fp16: loss-scaled float16 needs a CUDA GPU and there is none here; leave it out")
        return Choice("fp16", "train.fp16 = true")
    if train.bf16 is True:
        if gpu is not None and not gpu.has_bf16:
            raise EngineError(
                f"train.bf16: {gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]}) has no bfloat16; "
                "set train.fp16 = true and leave train.bf16 out, as recipes/tools-t4.toml does"
            )
        return Choice("bf16", "train.bf16 = true")
    if train.bf16 is False or dtype == "float32":
        return Choice("fp32", "train.bf16 = false" if train.bf16 is False else "model.dtype = float32")
    if gpu is not None:
        if gpu.has_bf16:
            return Choice("bf16", f"{gpu.name} has bfloat16")
        return Choice("fp16", f"{gpu.name} has no bfloat16")
    if hardware.cpu_bf16:
        return Choice("bf16", "the CPU has bfloat16 products")
    return Choice("fp32", "the CPU has no bfloat16 products")


def weight_dtype(recipe: Recipe, precision: str) -> str:
    """The dtype the frozen base weights are held in: `model.dtype`, or the precision's own."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[precision]
