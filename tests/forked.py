"""`toolkit` in processes of its own, alone or as ranks as torchrun starts them, forked from one that has imported all.

Run as a program it reads a job a line from standard input, starts a process for each rank, and answers in a line. A
job: {"ranks": their command lines, "alone": whether the only one is no rank, "environment": what it has besides,
"folder": for what they say, "when": rows of "metrics" to wait for, then "signal" to "to", the numbers of ranks,
"spoilt": the number of a rank whose losses are NaN from the third update on, "scarce": {"rank", "update", "at"}, where
a rank's memory runs out in an update at an operation, "times" times, or with "batch" for an update in a held-out one};
the answer: {"codes": exit codes,
"said": [[stdout, stderr], ...], "seconds": from the signal to the last rank's end}.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 120.0  # seconds of a job


@dataclass(frozen=True)
class Ended:
    """How ranks have ended: exit codes (negative: a signal's number), and what each said to stdout and stderr."""

    codes: list[int]
    said: list[tuple[str, str]]
    seconds: float


class Forks:
    """The process that others are forked from."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"},  # as the command sets it, before torch is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, *ranks: list[str], **more: Any) -> Ended:
        """Run a command line for each rank, to the end; `folder` is a new one for what they say."""
        assert self.process.stdin is not None and self.process.stdout is not None
        folder.mkdir(parents=True)
        self.process.stdin.write(json.dumps({"ranks": ranks, "folder": str(folder), **more}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Ended(answer["codes"], [(out, err) for out, err in answer["said"]], answer["seconds"])

    def toolkit(self, folder: Path, *words: str, **more: Any) -> Ended:
        """Run one command line, with this process's cache, as a shell would."""
        cache = {"TOOLKIT_CACHE": os.environ["TOOLKIT_CACHE"]}
        return self.run(folder, list(words), alone=True, environment=cache, **more)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _spoil() -> None:
    """Let this process's losses be NaN, from the third update on."""
    from toolkit.training.mixins.packed_batches import PackedBatches

    usual = PackedBatches.training_step

    def training_step(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        return usual(self, model, inputs, items * (float("nan") if self.state.global_step >= 2 else 1.0))

    PackedBatches.training_step = training_step  # type: ignore


def _scarce(how: dict[str, int]) -> None:
    """Let this process's memory run out."""
    from tests.scarce import OutAt
    from toolkit.training.mixins.eval_loss import EvalLoss
    from toolkit.training.mixins.memory_cuts import MemoryCuts

    among_ranks, held_out_loss = MemoryCuts.among_ranks, EvalLoss.held_out_loss
    left, batches = [how.get("times", 1)], [0]

    def now() -> OutAt:
        left[0] -= 1
        return OutAt(how["at"] if left[0] >= 0 else 0)

    def among(self: Any, model: Any, own: Any, inputs: Any) -> Any:
        def scarcely(inputs: Any) -> Any:
            with now():
                return own(inputs)

        there = self.state.global_step + 1 == how.get("update")
        return among_ranks(self, model, scarcely if there else own, inputs)

    def held_out(self: Any, batch: Any) -> Any:
        batches[0] += 1
        if batches[0] < how.get("batch", 10**9):
            return held_out_loss(self, batch)
        with now():
            return held_out_loss(self, batch)

    MemoryCuts.among_ranks, EvalLoss.held_out_loss = among, held_out  # type: ignore


def _start(words: list[str], rank: int, job: dict[str, Any], port: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(job["folder"], f"{rank}.{name}"), os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.update(job.get("environment", {}))
        if not job.get("alone"):
            size = len(job["ranks"])
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        sys.argv = ["toolkit", *words]
        if rank == job.get("spoilt"):
            _spoil()
        if rank == job.get("scarce", {}).get("rank"):
            _scarce(job["scarce"])
        from toolkit.commands.main import main

        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    folder, size, port = Path(job["folder"]), len(job["ranks"]), _free_port()
    running = {_start(words, rank, job, port): rank for rank, words in enumerate(job["ranks"])}
    pids = {rank: pid for pid, rank in running.items()}
    codes: dict[int, int] = {}
    began, sent = time.monotonic(), False
    while running and time.monotonic() - began < LONGEST:
        if "when" in job and not sent and _rows(Path(job["metrics"])) >= job["when"]:
            for rank in job["to"]:
                os.kill(pids[rank], signal.Signals[job["signal"]])
            began, sent = time.monotonic(), True
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    seconds = time.monotonic() - began
    for pid, rank in running.items():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        codes[rank] = 99
    said = [[(folder / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(size)]
    return {"codes": [codes[rank] for rank in range(size)], "said": said, "seconds": seconds}


def _rows(metrics: Path) -> int:
    return metrics.read_text().count("\n") if metrics.is_file() else 0


def _serve() -> None:
    import scipy.stats  # noqa: F401  (the log reader's)

    import toolkit.evaluation.command
    import toolkit.training.run
    import toolkit.training.session  # noqa: F401

    gc.freeze()  # each fork would look through all of it when it collects, and write to each page

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
