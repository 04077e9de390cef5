"""`toolkit push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import say


def push_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A model repository of the hub, as NAME/MODEL.")],
    only: Annotated[
        str, typer.Option(metavar="PARTS", help="Of what is there: adapter, gguf, merged.")
    ] = "adapter,gguf,merged",
    base: Annotated[
        str | None, typer.Option(metavar="NAME", help="The trained model's id on the hub, where it is a folder here.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository that everybody sees.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Add to a repository that holds other files.")] = False,
) -> None:
    """Push a run to the model hub: adapter, exported GGUF and merged weights, and a card with what was measured.

    One commit, so that a push which fails leaves the repository as it was. Needs a token that may write.

    Examples:

      toolkit push runs/tools me/tools

      toolkit push runs/tools me/tools --only adapter --public
    """
    from toolkit.export.push import Options, push

    parts = [part.strip() for part in only.split(",") if part.strip()]
    for line in push(run, Options(repo, parts, base, public, force)):
        say(line)
