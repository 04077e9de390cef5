"""`toolkit plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.terminal import new_console
from toolkit.words import counted


def plan(
    recipe: RecipePath,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Plan for this card, as t4, l4, a100 or h200, or cpu; default: the one here, else these cores where "
            "they would do it within a day, else t4.",
        ),
    ] = None,
    gpus: Annotated[
        int, typer.Option(metavar="N", min=1, help="Plan for N such cards, which share each update's chats.")
    ] = 1,
    price: Annotated[
        float | None, typer.Option(metavar="DOLLARS_PER_HOUR", min=0, help="What an hour on a card costs.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget that memory ran out in earlier runs like this one.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Say what a run will need before it is started: parameters, updates, memory, time and cost.

    Loads no model and needs no GPU. Where a run like this one ran out of memory on this device, the plan has the
    smaller micro-batches that it went on with, and so does the next run.

    Examples:

      toolkit plan recipes/tools.toml --gpu t4 --price 0.60

      toolkit plan recipes/tools.toml --gpu l4 --set train.max_length=4096

      toolkit plan recipes/tools.toml --gpu l4 --gpus 2
    """
    with loaded(recipe, overrides) as asked:
        from toolkit.planning import ran_out
        from toolkit.planning.plan import plan_recipe
        from toolkit.planning.show import show

        console = new_console()
        made = plan_recipe(asked, gpu=gpu, price=price, gpus=gpus)
        if forget and made.case is not None:
            times = ran_out.forget(made.case)
            told = f"that memory ran out {counted(times, 'time')}" if times else "nothing: memory did not run out here"
            console.print(f"forgot      {told}", highlight=False)
            made = plan_recipe(asked, gpu=gpu, price=price, gpus=gpus)
        show(made, console)
