"""`toolkit run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.environment import is_one_of_several
from toolkit.errors import EngineError
from toolkit.terminal import say, warn
from toolkit.words import next_steps, typed


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
    gpus: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Train on N GPUs of this machine, an update's chats shared by them; without a GPU as N processes on "
            "the CPU, for trying it out.",
        ),
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

      toolkit run recipes/tools.toml --gpus 2

    Ctrl-C saves a checkpoint and says how to go on. Exit codes: 0 done, 1 the work failed, 2 the input is wrong,
    130 interrupted.
    """
    if resume is not None and recipe.resolve() == (resume / "recipe.toml").resolve():
        from toolkit.training.resume import mend_recipe

        mend_recipe(resume, lambda text: warn(f"note: {text}"))
    if gpus is not None and not is_one_of_several(os.environ):
        if gpus > 1 and _launched(gpus, recipe, overrides, out, resume):
            return
    elif gpus is not None and gpus != int(os.environ["WORLD_SIZE"]):
        raise EngineError(
            f"--gpus {gpus}, but started as one of {os.environ['WORLD_SIZE']} processes; torchrun's number is enough"
        )
    with loaded(recipe, overrides) as asked:
        # after the recipe: a typing error should not wait for torch to be imported
        from toolkit.training.run import run as train

        made = train(asked, out, resume, export=export)
    if made.export.is_dir():
        verbs = [typed("chat", made.export), typed("serve", made.export)]
    else:
        verbs = [typed("export", made.path, "--gguf", "q8_0"), typed("chat", made.path)]
    for line in next_steps(*verbs, typed("eval", made.path)):
        say(line)


def _launched(gpus: int, recipe: Path, overrides: list[str] | None, out: Path | None, resume: Path | None) -> bool:
    """Train as `gpus` processes; False for a run that is trained, whose end one process makes.

    What is wrong with recipe and folders is said once, before any is started.
    """
    # none is wanted for --help
    from toolkit.engines.recipes import load
    from toolkit.training.launch import launch
    from toolkit.training.run import left_to_train

    asked = load(recipe, overrides or ())
    with asked.placed():
        if not left_to_train(asked, out, resume):
            return False
        launch(gpus, asked.recipe.chats_per_update)
    return True
