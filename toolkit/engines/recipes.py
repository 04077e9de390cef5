"""Recipes, read with what engines have to say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit import recipe as recipes
from toolkit.engines.registry import ENGINES
from toolkit.models.families import why_not_packed
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
    yield from _packing(recipe)


def _packing(recipe: Recipe) -> Iterator[Finding]:
    """A model whose chats can't be packed, where its config.json is here to tell."""
    if recipe.train.micro_batch == "fixed":
        return
    if (why := why_not_packed(recipe.model, recipe.train.max_length)) is None:
        return
    engine, named = ("train", "engine"), ("train", "micro_batch")
    asked = ENGINES.get(recipe.train.engine)
    if asked is not None and asked.packs_only:
        message = f'"{asked.name}" takes packed chats only, and this model\'s can\'t be: {why}; wanted engine = "auto" '
        yield (engine, named, ("model", "name")), message + 'and micro_batch = "fixed"'
    else:
        yield (named, ("model", "name")), f"this model's chats can't be packed: {why}; wanted \"fixed\""
