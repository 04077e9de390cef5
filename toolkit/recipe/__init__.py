"""Recipes: one TOML file that says all of a run."""

from toolkit.recipe.dump import dump
from toolkit.recipe.load import LoadedRecipe, load
from toolkit.recipe.schema import Recipe

__all__ = ["LoadedRecipe", "Recipe", "dump", "load"]
