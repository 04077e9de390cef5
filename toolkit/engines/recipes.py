"""Recipes, read with what engines have to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit import recipe as recipes
from toolkit.engines.registry import ENGINES
from toolkit.recipe.checks import Finding
from toolkit.recipe.load import LoadedRecipe
from toolkit.recipe.schema import Recipe


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """`toolkit.recipe.load`, which also finds what the engine asked for can't train. Raises `RecipeError`."""
    return recipes.load(path, overrides, (contradictions,))


def contradictions(recipe: Recipe) -> Iterator[Finding]:
    """What the engine that a recipe asks for refuses in it, and what is another's alone."""
    for name, engine in ENGINES.items():
        for reason in engine.refuses(recipe) if name == recipe.train.engine else engine.reserves(recipe):
            yield reason.keys, reason.message
