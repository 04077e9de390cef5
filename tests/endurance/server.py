"""Runs `toolkit` command lines in forks of one process that has imported everything, so that each takes no start-up.

A job is a JSON line on standard input: {"words", "folder", "environment", "output", "at", "harm", "die_after",
"beside"}. The answer is {"codes", "events", "reads"}: exit codes, or the negative number of the signal that killed it,
of `words` and of those that run `beside` it at the same time; the paths that the first opened for writing, made,
renamed or removed, in turn, and those of the job's folder that it opened for reading (none where it was killed). At
event `at`, counted from 1 (0: never), something happens to it (`HARMS`), or it is killed after `die_after` seconds; a
"failed read" is the one of number `at`.
"""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def kill(_: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def empty_cache(job: dict[str, Any]) -> None:
    """Another process clears the cache."""
    shutil.rmtree(job["environment"]["TOOLKIT_CACHE"], ignore_errors=True)


def turn_clock(_: dict[str, Any]) -> None:
    """The machine's clock is set back by ten years, and a moment later it is ten years ahead."""
    usual, looks = time.time, itertools.count()
    time.time = lambda: usual() + (-1) ** (next(looks) + 1) * 10 * 365.25 * 86400
    time.time_ns = lambda: int(time.time() * 1e9)


HARMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "kill": kill,
    "empty cache": empty_cache,
    "turn clock": turn_clock,
    "full disk": lambda job: None,  # this and the next are `Mortal`'s own
    "failed read": lambda job: None,
}


class Mortal:
    """An audit hook that notes what is done to files, and has something happen at a number of them.

    A disk that is full stays so: nothing can be opened for writing or made any more in the job's folder.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.at = job, job["at"]
        self.paths: list[str] = []
        self.reads: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
        if event == "open" and not opened:
            self.read(arguments[0])
        if not opened and event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            return
        path = str(arguments[1 if event == "os.rename" else 0]).replace("\n", " ")
        self.paths.append(path)
        if len(self.paths) == self.at and self.job["harm"] != "failed read":
            HARMS[self.job["harm"]](self.job)
        full = self.job["harm"] == "full disk" and 0 < self.at <= len(self.paths)
        if full and (opened or event in ("os.mkdir", "os.link")) and self.job["folder"] in os.path.abspath(path):  # noqa: PTH100
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def read(self, path: Any) -> None:
        """The machine can't read a block of the disk; what is tried again may be read."""
        if not isinstance(path, str) or self.job["folder"] not in os.path.abspath(path):  # noqa: PTH100
            return
        self.reads.append(path.replace("\n", " "))
        if self.job["harm"] == "failed read" and len(self.reads) == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)


def run(job: dict[str, Any], words: list[str], output: str) -> int:
    """In a fork: run a command line as `toolkit` would."""
    from toolkit.commands import main as cli

    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.argv = ["toolkit", *words]
    mortal = Mortal(job)
    sys.addaudithook(mortal)
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    mortal.at = 0
    for name, paths in (("events", list(mortal.paths)), ("reads", list(mortal.reads))):
        Path(f"{output}.{name}").write_text("\n".join(paths))
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
    gc.freeze()  # each fork would look through all of it when it collects, and write to each page


def fork(job: dict[str, Any], words: list[str], output: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = run(job, words, output)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    preload()
    for line in sys.stdin:
        job = json.loads(line)
        output = job["output"]
        pid = fork(job, job["words"], output)
        others = [fork(job, words, f"{output}.{number}") for number, words in enumerate(job["beside"])]
        codes = [wait(pid, job["die_after"]), *(wait(other, 0) for other in others)]
        left = {name: Path(f"{output}.{name}") for name in ("events", "reads")}
        found = {name: path.read_text().split("\n") if path.is_file() else [] for name, path in left.items()}
        print(json.dumps({"codes": codes, **found}), flush=True)


if __name__ == "__main__":
    main()
