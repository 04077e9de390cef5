"""`toolkit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.errors import ToolkitError
from toolkit.terminal import new_console

UPDATES = 5


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder; with --export an export folder will do.")],
    updates: Annotated[
        int, typer.Option("--updates", min=1, metavar="N", help="How many of the first updates to make again.")
    ] = UPDATES,
    export: Annotated[
        bool,
        typer.Option("--export", help="Only compare the exported files with the hashes in their record."),
    ] = False,
) -> None:
    """Make a run's first updates again from what it left, and compare them with its log.

    Says first what is not as it was: versions, CPU, threads, GPU. On the same CPU and versions the numbers have to be
    equal to the last bit, elsewhere within a tolerance that is said. Data, model, template or recipe that have changed
    are refused by name. In the run's folder only verification.json is written, and report.html, which shows it, again.

    Examples:

      toolkit verify runs/quickstart

      toolkit verify runs/quickstart --updates 20

      toolkit verify runs/quickstart --export

    Exit codes: 0 verified, 1 the numbers or files are others, 2 there is nothing to compare with, or it has changed.
    """
    console = new_console(soft_wrap=True)
    if export:
        from toolkit.training.verify.exported import verify_files

        fine, said = verify_files(run, console)
    else:
        from toolkit.training.verify.run import verify_run

        verdict, said = verify_run(run, console, updates)
        fine = verdict != "different"
    if not fine:
        raise ToolkitError(said)
    console.print(said, markup=False)
