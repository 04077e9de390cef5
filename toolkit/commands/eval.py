"""`toolkit eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from toolkit.commands.options import wide_console
from toolkit.errors import InputError
from toolkit.files import unwritable
from toolkit.terminal import new_console, say


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A run folder, a model folder, hub id or pypi: model, an export folder or a GGUF file.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A file or folder of chats, builtin:tools (development set), builtin:test (test set, for final "
            "figures only), or bfcl:FOLDER-OR-WHEEL; default: what the run held out.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE", help="Takes call format and held-out chats from this recipe, for plain models and GGUFs."
        ),
    ] = None,
    chats: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="At most this many chats, spread evenly (of a hub data set the first); default: 200, or the whole "
            "test set.",
        ),
    ] = None,
    executed: Annotated[
        bool, typer.Option("--executed", help="Run the calls of built-in chats in their simulated world, turn by turn.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this built-in split: phrasing or tools.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="For a run folder, a first column with its adapter switched off.")
    ] = True,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="T", help="Sample at this temperature; 0 takes the likeliest token.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the sampling.")] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most tokens of an answer; default: the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Chats decoded at a time; default: the recipe's.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="How many flipped chats to show.")] = 3,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep answers on disk, so that what was decoded once is not again."),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write every answer and the table as JSON into this folder, new or of an earlier table; within RUN, "
            "its report shows them.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Put held-out chats to one or several models and say how well they call tools.

    The first model is what the others are compared with: with confidence intervals, an exact test and the chats that
    flipped. Chats are rendered as in training.

    Examples:

      toolkit eval runs/quickstart

      toolkit eval runs/quickstart runs/quickstart/export --executed

      toolkit eval runs/quickstart --data builtin:test --executed

      toolkit eval Qwen/Qwen3-1.7B runs/tools --data bfcl:bfcl_eval-2026.3.23-py3-none-any.whl --chats 1000

    Exit codes: 0 done, 1 the work failed, 2 the input is wrong.
    """
    from toolkit.evaluation.command import Options, evaluate_models
    from toolkit.evaluation.saved import check_folder

    if out is not None:  # before models are asked for minutes
        if why := unwritable(out):
            raise InputError(f"--out {out}: {why}; name another folder")
        check_folder(out)
    options = Options(
        data=data,
        recipe=recipe,
        chats=chats,
        split=split,
        executed=executed,
        base=base,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        cache=cache,
    )
    table = evaluate_models(models, options, new_console(stderr=as_json, soft_wrap=True))
    if out is not None:
        table.save(out)
    if as_json:
        say(json.dumps(table.as_dict(), indent=2, ensure_ascii=True))
    else:
        table.render(wide_console(), samples)
        if out is not None:
            say(f"\nwritten to {out}")
