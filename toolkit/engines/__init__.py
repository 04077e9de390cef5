"""Engines hold the only imports of PEFT, bitsandbytes and Unsloth. All are handed the same token ids and labels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from toolkit.engines.base import (
    Choice,
    EngineReport,
    Loaded,
    check_hardware,
    check_installed,
    choose_precision,
)
from toolkit.engines.measured import fastest_engine
from toolkit.engines.measured import load as load_measured
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe

__all__ = ["Choice", "EngineReport", "Loaded", "choose", "load"]


def choose(recipe: Recipe, hardware: Hardware, begun_with: str | None = None) -> tuple[Choice, Choice]:
    """(engine, precision) for this recipe on this machine, each with its reason. Raises `EngineError`.

    `begun_with`: the engine of the run that is to go on, which "auto" then is.
    """
    again = begun_with if recipe.train.engine == "auto" else None
    if again is not None:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"engine": again})})
    check_hardware(recipe, hardware)
    check_installed(recipe)
    engine = fastest_engine(recipe, hardware, importlib.util.find_spec("unsloth") is not None, load_measured())
    if again is not None:
        engine = Choice(engine.value, "the run began with it")
    precision = choose_precision(recipe, hardware)
    if engine.value == "unsloth":
        from toolkit.engines import unsloth

        unsloth.prepare()
    return engine, precision


def load(recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware) -> Loaded:
    """Load model and adapter with the chosen engine."""
    if engine.value == "unsloth":
        from toolkit.engines import unsloth

        return unsloth.load(recipe, folder, tokenizer, engine, precision, hardware)
    if engine.value == "compiled":
        from toolkit.engines import compiled

        return compiled.load(recipe, folder, tokenizer, engine, precision, hardware)
    from toolkit.engines import peft

    return peft.load(recipe, folder, tokenizer, engine, precision, hardware)
