"""Commands that are measured for so long and no longer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable


def ended(
    process: subprocess.Popen[bytes], seconds: float, *, grace: float, cut: Callable[[], None] = lambda: None
) -> int:
    """The exit code of a process that leads a session of its own.

    After `seconds` (1 at least) it is asked to stop, as by Ctrl-C, and writes what it has; after `grace` more it is
    killed. `cut` is called each time. Nothing of its session outlives it.
    """
    try:
        for wait, number in ((max(seconds, 1), signal.SIGINT), (grace, signal.SIGKILL)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(wait)
            cut()
            process.send_signal(number)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it may have left
        process.wait()
    return process.returncode
