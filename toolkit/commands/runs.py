"""`toolkit runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import new_console


def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs are; default: runs/.")] = Path("runs"),
) -> None:
    """List the runs in a folder: model, state, updates, losses, right answers before and after, size."""
    from toolkit.reports.listing import show_runs

    show_runs(folder, new_console())
