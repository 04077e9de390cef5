"""`toolkit plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.commands.options import Overrides, RecipePath, loaded
from toolkit.terminal import new_console


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
    overrides: Overrides = None,
) -> None:
    """Say what a run will need before it is started: parameters, updates, memory, time and cost.

    Loads no model and needs no GPU.

    Examples:

      toolkit plan recipes/tools.toml --gpu t4 --price 0.60

      toolkit plan recipes/tools.toml --gpu l4 --set train.max_length=4096

      toolkit plan recipes/tools.toml --gpu l4 --gpus 2
    """
    with loaded(recipe, overrides) as asked:
        from toolkit.planning.plan import plan_recipe
        from toolkit.planning.show import show

        show(plan_recipe(asked, gpu=gpu, price=price, gpus=gpus), new_console())
