"""`toolkit launch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.terminal import say


def launch_job(
    platform: Annotated[str, typer.Argument(metavar="hf-jobs|skypilot|modal", help="Whose machines.")],
    recipe: RecipePath,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="A card, as t4, l4, a100-80 or h200.")] = "t4",
    gpus: Annotated[int, typer.Option(min=1, metavar="N", help="So many of it, which share each update.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="HOURS",
            help="After which the job is ended; training is fitted to it. Default: one and a half times the plan.",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="DOLLARS_PER_HOUR", min=0, help="What an hour on a card costs.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option(metavar="NAME/MODEL", help="Push the adapter there at the end (secret HF_TOKEN).")
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Where checkpoints stay: a bucket of the hub or a cloud, a Modal volume."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where the job gets the toolkit: git+https://ADDRESS@REVISION or a checkout. Default: this one.",
        ),
    ] = None,
    secret: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A secret that the job gets, by its name. May be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The new folder; default: jobs/RECIPE-PLATFORM.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a folder that is there.")] = False,
    overrides: Overrides = None,
) -> None:
    """Write a recipe as a job for rented machines, and say how it is started, how long it takes and what it costs.

    Writes files only: nothing is started and nothing is sent. The same command goes on where a job was stopped.

    Examples:

      toolkit launch hf-jobs recipes/tools-t4.toml --repo me/tools --source git+https://example.org/me/toolkit@main

      toolkit launch skypilot recipes/tools.toml --gpu l4 --runs s3://my-bucket --price 0.70

      toolkit launch modal recipes/tools.toml --gpu l4 --timeout 3
    """
    from toolkit.jobs.launch import Asked, launch

    with loaded(recipe, overrides) as given:
        made = launch(
            given,
            Asked(platform, gpu, gpus, timeout, price, repo, runs, source, tuple(secret or ()), out, force),
        )
    for line in made.lines():
        say(line)
