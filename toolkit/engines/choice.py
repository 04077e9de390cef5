"""Which engine trains a recipe on a machine, and why."""

from __future__ import annotations

from toolkit.engines.base import Choice, Has, is_installed
from toolkit.engines.registry import ENGINES
from toolkit.errors import EngineError, Problem
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe


def choose_engine(recipe: Recipe, hardware: Hardware, has: Has = is_installed) -> Choice:
    """`train.engine`, or for `auto` the first that can run of those that are taken without measuring.

    Raises `EngineError` when the engine asked for can't run here.
    """
    asked = recipe.train.engine
    if asked != "auto":
        if reasons := ENGINES[asked].can_run(recipe, hardware, has):
            raise EngineError([Problem("", str(reason)) for reason in reasons])
        return Choice(asked, "the recipe asks for it")
    automatic = sorted((engine for engine in ENGINES.values() if engine.automatic), key=lambda one: -one.automatic)
    why = ""
    for engine in automatic[:-1]:
        reasons = engine.can_run(recipe, hardware, has)
        if not reasons:
            return Choice(engine.name, why or engine.advantage(hardware))
        why = why or reasons[0].why
    return Choice(automatic[-1].name, why or automatic[-1].advantage(hardware))
