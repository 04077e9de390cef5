"""Runs `toolkit` command lines in forks of one process that has imported everything, so that each takes no start-up.

A job is a JSON line on standard input: {"words", "folder", "environment", "output", "die_at", "die_after"}. The answer
is {"code", "events"}: an exit code, or the negative number of the signal that killed it, and the paths that it opened
for writing, made, renamed or removed, in turn (none where it was killed). It is killed by SIGKILL at event `die_at`,
counted from 1, or after `die_after` seconds; 0 is never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Mortal:
    """An audit hook that notes what is done to files, and ends the process at a number of them."""

    def __init__(self, die_at: int) -> None:
        self.die_at = die_at
        self.paths: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
        if not opened and event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            return
        self.paths.append(str(arguments[1 if event == "os.rename" else 0]).replace("\n", " "))
        if len(self.paths) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def run(job: dict[str, Any]) -> int:
    """In the fork: run a command line as `toolkit` would."""
    from toolkit.commands import main as cli

    handle = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.argv = ["toolkit", *job["words"]]
    mortal = Mortal(job["die_at"])
    sys.addaudithook(mortal)
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    paths = list(mortal.paths)
    Path(job["output"] + ".events").write_text("\n".join(paths))
    return code


def wait(pid: int, die_after: float) -> int:
    """How a fork ended, which is killed after so many seconds if there are any."""
    if die_after:
        until = time.monotonic() + die_after
        while time.monotonic() < until:
            if (ended := os.waitpid(pid, os.WNOHANG))[0]:
                return os.waitstatus_to_exitcode(ended[1])
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def preload() -> None:
    """Import what every job needs."""
    import peft
    import torch
    import trl

    torch.set_num_threads(1)
    assert trl.SFTTrainer and peft.PeftModel
    from transformers import LlamaForCausalLM

    import toolkit.data.tablefile
    import toolkit.evaluation.command
    import toolkit.export.export
    import toolkit.export.verify
    import toolkit.reports.report
    import toolkit.training.session
    import toolkit.training.trainer
    import toolkit.world

    assert LlamaForCausalLM and toolkit


def main() -> None:
    preload()
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = run(job)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = wait(pid, job["die_after"])
        events = Path(job["output"] + ".events")
        print(
            json.dumps({"code": code, "events": events.read_text().split("\n") if events.is_file() else []}), flush=True
        )


if __name__ == "__main__":
    main()
