"""`toolkit` in processes of its own, alone or as ranks as torchrun starts them, forked from one that has imported all.

Run as a program it reads a job a line from standard input, starts a process for each rank, and answers in a line. A
job: {"ranks": their command lines, "alone": whether the only one is no rank, "environment": what it has besides,
"folder": for what they say, "signal": {"name", "rank", "update"}, which a rank gets in an update, "spoilt": the number
of a rank whose losses are NaN from the third update on, "scarce": {"rank", "update", "at"}, where a rank's memory runs
out in an update at an operation, "times" times, or with "batch" for an update in a held-out one, or with "stage" in
"decoding" or "saving", which is said on stderr};
the answer: {"codes": exit codes, "said": [[stdout, stderr], ...], "seconds": from the first rank's end to the last's}.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import kept_port

LONGEST = 900.0  # seconds of a job, on the busiest machine: what takes longer waits for something


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
        self.process.wait(300)


def _signalled(how: dict[str, Any]) -> None:
    """Let this process get a signal in an update, as if it came from outside."""
    from toolkit.training.mixins.packed_batches import PackedBatches

    usual, left = PackedBatches.training_step, [signal.Signals[how["name"]]]

    def training_step(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        if left and self.state.global_step + 1 == how["update"]:
            os.kill(os.getpid(), left.pop())
        return usual(self, model, inputs, items)

    PackedBatches.training_step = training_step  # type: ignore


def _spoil() -> None:
    """Let this process's losses be NaN, from the third update on."""
    from toolkit.training.mixins.packed_batches import PackedBatches

    usual = PackedBatches.training_step

    def training_step(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        return usual(self, model, inputs, items * (float("nan") if self.state.global_step >= 2 else 1.0))

    PackedBatches.training_step = training_step  # type: ignore


def _scarce(how: dict[str, Any]) -> None:
    """Let this process's memory run out."""
    import torch

    from tests.scarce import OutAt
    from toolkit.inference import continuous
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

    @contextlib.contextmanager
    def told() -> Iterator[None]:
        try:
            with now():
                yield
        except torch.OutOfMemoryError:
            os.write(2, b"scarce\n")
            raise

    def decoded(*given: Any, **more: Any) -> Any:
        with told():
            yield from decode(*given, **more)

    def saved(*given: Any, **more: Any) -> Any:
        with told():
            torch.ones(1).neg()
        return save(*given, **more)

    MemoryCuts.among_ranks, EvalLoss.held_out_loss = among, held_out  # type: ignore
    if how.get("stage") == "decoding":
        decode, continuous.decode_continuously = continuous.decode_continuously, decoded
    if how.get("stage") == "saving":
        save, torch.save = torch.save, saved


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
        if rank == job.get("signal", {}).get("rank"):
            _signalled(job["signal"])
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


def _run(job: dict[str, Any], port: int) -> dict[str, Any]:
    folder, size = Path(job["folder"]), len(job["ranks"])
    running = {_start(words, rank, job, port): rank for rank, words in enumerate(job["ranks"])}
    codes: dict[int, int] = {}
    began, ends = time.monotonic(), list[float]()
    while running and time.monotonic() - began < LONGEST:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
                ends.append(time.monotonic())
        time.sleep(0.02)
    for pid, rank in running.items():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        codes[rank] = 99
    said = [[(folder / f"{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(size)]
    seconds = max(ends, default=0.0) - min(ends, default=0.0)
    return {"codes": [codes[rank] for rank in range(size)], "said": said, "seconds": seconds}


def _serve() -> None:
    import scipy.stats  # noqa: F401  (the log reader's)

    import toolkit.evaluation.command
    import toolkit.training.run
    import toolkit.training.session  # noqa: F401

    gc.freeze()  # each fork would look through all of it when it collects, and write to each page

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        with kept_port() as port:
            answers.write(json.dumps(_run(json.loads(line), port)) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
