"""`toolkit run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.terminal import say, warn


def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run's new folder; default: runs/ and the recipe's name.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with this run from its last checkpoint; give its recipe again."),
    ] = None,
    export: Annotated[
        bool,
        typer.Option("--export/--no-export", help="Do what the recipe's [export] asks for, or leave it for later."),
    ] = True,
) -> None:
    """Train what a recipe says and leave a run folder with the adapter.

    Examples:

      toolkit run recipes/quickstart.toml

      toolkit run recipes/tools.toml --out runs/first

      toolkit run recipes/tools.toml --resume runs/first

      toolkit run my-trial.toml --no-export

    Ctrl-C saves a checkpoint and says how to go on. Exit codes: 0 done, 1 the work failed, 2 the input is wrong,
    130 interrupted.
    """
    if resume is not None and recipe.resolve() == (resume / "recipe.toml").resolve():
        from toolkit.training.resume import mend_recipe

        mend_recipe(resume, lambda text: warn(f"note: {text}"))
    with loaded(recipe, overrides) as asked:
        # after the recipe: a typing error should not wait for torch to be imported
        from toolkit.training.run import run as train

        made = train(asked, out, resume, export=export)
    if made.export.is_dir():
        verbs = f"toolkit chat {made.export}, toolkit serve {made.export}"
    else:
        verbs = f"toolkit export {made.path} --gguf q8_0, toolkit chat {made.path}"
    say(f"next       {verbs}, toolkit eval {made.path}")
