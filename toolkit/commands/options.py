"""What several verbs share: arguments, options, consoles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.terminal import new_console, warn

if TYPE_CHECKING:
    from rich.console import Console

    from toolkit.recipe import LoadedRecipe

MOST_AT_ONCE = 256  # sequences that llama.cpp holds (LLAMA_MAX_SEQ)
MOST_CONTEXT = 2**31 // MOST_AT_ONCE - 1  # tokens; it counts those of all chats in 31 bits
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, as recipes/tools.toml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Put a value over the recipe's, as --set train.learning_rate=1e-4. May be given many times.",
    ),
]


def wide_console() -> Console:
    """For tables that may be wider than 80 columns, which rich takes a file or pipe to be."""
    made = new_console()
    if not made.is_terminal:
        made.width = 200
    return made


@contextmanager
def loaded(path: Path, overrides: list[str] | None) -> Iterator[LoadedRecipe]:
    """The recipe, with what there is to say of it said; errors about its keys that come up inside get their place."""
    from toolkit.engines.recipes import load

    recipe = load(path, overrides or ())
    for note in recipe.notes:
        warn(f"note: {note}")
    with recipe.placed():
        yield recipe
