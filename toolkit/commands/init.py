"""`toolkit init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import one_line, say


def init(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Your chats: .jsonl, .json, .csv, .parquet, also .gz or .zst; or a folder."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A hub id or a folder; default: Qwen/Qwen3-1.7B with a GPU, the quickstart's SmolLM2-135M without.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="The recipe; default: the data's name, beside it.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            metavar="user=A,assistant=B",
            help="Columns of other names than a format has: user and assistant, or messages; system, tools.",
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe that is there.")] = False,
) -> None:
    """Look at your data and write a recipe for it, with a word on each setting.

    Says what it found: the format, how many chats and how long, tools, what stands there twice, rows that can't be
    used with file and line. The recipe is ready for data check, plan and run.

    Examples:

      toolkit init chats.jsonl

      toolkit init exported/ --model Qwen/Qwen3-4B --out support.toml

      toolkit init faq.csv --columns user=question,assistant=answer
    """
    from toolkit.drafting.draft import draft

    for line in draft(data, model, out, columns, force=force):
        say(one_line(line))
