"""`toolkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import new_console

MOST_LINES = 5  # of a damaged file, that are named one by one


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run folder; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the run's folder."),
    ] = None,
    bench: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Show these results of `toolkit bench` too.")
    ] = None,
) -> None:
    """Show what a run did: verdicts on its log, curves, data, tool calls before and after.

    The page is one file that needs nothing else. It can be made while the run goes on. Several runs are compared:
    their recipes, curves and results side by side, and the chats that only one of them answers right.

    Examples:

      toolkit report runs/quickstart

      toolkit report runs/quickstart runs/quickstart-2 --out compared.html
    """
    from toolkit.reports.live import terminal_text
    from toolkit.reports.report import write_report

    console = new_console()
    page = write_report(runs, out, bench or ())
    for view in page.views:
        for problem in view.bad_lines[:MOST_LINES]:
            console.print(f"note       {problem}: left out", soft_wrap=True, markup=False)
        if (more := len(view.bad_lines) - MOST_LINES) > 0:
            console.print(
                f"note       {view.folder.metrics}: {more} more lines are left out", soft_wrap=True, markup=False
            )
        for verdict in view.verdicts:
            name = f"{view.name}: " if len(page.views) > 1 else ""
            console.print(name, terminal_text(verdict), sep="", soft_wrap=True, markup=False)
    console.print(f"written to {page.path}", markup=False, soft_wrap=True)
