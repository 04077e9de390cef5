"""A worker as its parent sees it."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.job import Job

ENDS = ("oom", "failed", "bye")
PRELOADED = ["torch", "transformers.trainer", "trl.trainer.sft_trainer", "peft", "datasets"]


def context(*, gpu: bool) -> Any:
    """How workers are started: from nothing where CUDA or Unsloth is in play, else forked off one process that has
    imported the slow libraries and done nothing with them."""
    if gpu or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


class WorkerProcess:
    """A process with a job. `hear` waits for what it says next; what it prints goes to `log`."""

    def __init__(self, job: Job, log: Path, *, gpu: bool) -> None:
        from bench.worker import enter

        log.parent.mkdir(parents=True, exist_ok=True)
        self.job, self.log = job, log
        self._connection: Connection
        start = context(gpu=gpu)
        self._connection, theirs = start.Pipe()
        self._process = start.Process(target=enter, args=(theirs, job, str(log)))
        self._process.start()
        theirs.close()

    def hear(self, timeout: float) -> dict[str, Any]:
        """The next event. A worker that says nothing for `timeout` seconds is ended and counts as failed."""
        try:
            if self._connection.poll(timeout):
                heard: dict[str, Any] = self._connection.recv()
                return heard
        except (EOFError, OSError):
            self._process.join(5)
            return {"event": "failed", "stage": "", "message": self._last_words()}
        self.kill()
        return {"event": "failed", "stage": "", "message": f"said nothing for {timeout:.0f} s; see {self.log}"}

    def _last_words(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        return f"ended with code {self._process.exitcode}: {lines[-1][:300] if lines else 'no message'}"

    @property
    def connection(self) -> Connection:
        return self._connection

    def warm(self) -> None:
        """Let a worker that has loaded begin its warm-up."""
        self._tell({"warm": True})

    def turn(self, number: int, settle: int, updates: int, timeout: float, *, kernels: bool = False) -> dict[str, Any]:
        self._tell({"turn": number, "settle": settle, "updates": updates, "kernels": kernels})
        return self.hear(timeout)

    def quit(self, timeout: float = 60) -> dict[str, Any]:
        """End the worker; returns its last words, among them the bytes it still had reserved."""
        self._tell({"quit": True})
        last = self.hear(timeout)
        self.kill(grace=timeout)
        return last

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send(message)
        except OSError:
            return  # it has ended; `hear` says so

    def kill(self, grace: float = 0.0) -> None:
        self._process.join(grace)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()
