"""`toolkit doctor`."""

from __future__ import annotations

import typer

from toolkit.terminal import new_console


def doctor() -> None:
    """Check this machine: versions, GPU, what is missing and the command that mends it.

    Exit code 0 when `toolkit run` can work here, 1 when it can't.
    """
    from toolkit.doctor import examine

    report = examine()
    report.render(new_console())
    if not report.ok:
        raise typer.Exit(1)
