"""Engines hold the only imports of PEFT, bitsandbytes and Unsloth. All are handed the same token ids and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.engines.base import Choice, Engine, EngineReport, Loaded, is_installed
from toolkit.engines.measured import fastest_engine
from toolkit.engines.measured import load as load_measured
from toolkit.engines.precision import choose_precision
from toolkit.engines.registry import ENGINES, versions
from toolkit.engines.requirements import check_hardware, check_installed
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe

__all__ = ["ENGINES", "Choice", "Engine", "EngineReport", "Loaded", "choose", "load", "versions"]


def choose(recipe: Recipe, hardware: Hardware, begun_with: str | None = None) -> tuple[Choice, Choice]:
    """(engine, precision) for this recipe on this machine, each with its reason. Raises `EngineError`.

    `begun_with`: the engine of the run that is to go on, which "auto" then is.
    """
    again = begun_with if recipe.train.engine == "auto" else None
    if again is not None:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"engine": again})})
    check_hardware(recipe, hardware)
    check_installed(recipe)
    engine = fastest_engine(recipe, hardware, load_measured(), is_installed)
    if again is not None:
        engine = Choice(engine.value, "the run began with it")
    precision = choose_precision(recipe, hardware)
    ENGINES[engine.value].prepare()
    return engine, precision


def load(recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware) -> Loaded:
    """Load model and adapter with the chosen engine."""
    return ENGINES[engine.value].load(recipe, folder, tokenizer, engine, precision, hardware)
