"""A pool ends however one of its processes does, as one that is killed in the middle of what it sends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from toolkit.pools import begin, end, result, submit


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def half(self: Any, buf: bytes, write: Any = os.write) -> None:
    write(self._handle, bytes(buf[: len(buf) // 2]))
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_sending(_: int) -> bytes:
    connection.Connection._send = half  # type: ignore[attr-defined]
    return b"x" * 100_000


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def late() -> None:
    raise TimeoutError("of the work's own")


def test_a_process_that_dies_while_it_sends_does_not_keep_others_waiting() -> None:
    made = pool()
    futures = [made.submit(killed_while_sending, number) for number in range(6)]
    with pytest.raises(BrokenProcessPool):
        for future in futures:
            result(made, future, patience=0.2)
    made.shutdown(wait=True, cancel_futures=True)


def test_a_pool_that_is_ended_waits_for_nothing() -> None:
    made = pool()
    futures = [made.submit(slow, 600.0) for _ in range(30)]
    time.sleep(1)
    began = time.monotonic()
    end(made)
    made.shutdown(wait=True, cancel_futures=True)
    assert time.monotonic() - began < 300  # not the ten minutes of what was going on
    assert all(future.done() for future in futures)


def heard(_: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_processes_that_are_just_starting_hear_no_interrupt_and_this_one_still_does() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin) as made:
        assert result(made, submit(made, heard, 0)) is False
    assert heard(0)


ORPHANS = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from toolkit.pools import begin, submit

if __name__ == "__main__":
    made = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin)
    print(submit(made, os.getpid).result(), flush=True)
    submit(made, time.sleep, 600)
    time.sleep(600)
"""


def test_processes_end_where_the_one_that_began_them_is_killed(tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    with subprocess.Popen([sys.executable, tmp_path / "orphans.py"], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        worker = Path("/proc", main.stdout.readline().strip())
        assert worker.is_dir()
        main.kill()
        main.wait()
        for _ in range(300):
            time.sleep(0.1)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if ") Z " not in (worker / "stat").read_text():
                    continue
            return
        os.kill(int(worker.name), signal.SIGKILL)
    pytest.fail("the worker lives on")


def test_what_takes_longer_than_a_look_is_waited_for_and_errors_are_the_works_own() -> None:
    with pool() as made:
        assert result(made, made.submit(slow, 0.5), patience=0.1) == 0.5
        with pytest.raises(TimeoutError, match="of the work's own"):
            result(made, made.submit(late))
