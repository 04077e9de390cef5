"""A pool ends however one of its processes does, as one that is killed in the middle of what it sends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

import pytest

from toolkit.pools import end, result


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


def test_what_takes_longer_than_a_look_is_waited_for_and_errors_are_the_works_own() -> None:
    with pool() as made:
        assert result(made, made.submit(slow, 0.5), patience=0.1) == 0.5
        with pytest.raises(TimeoutError, match="of the work's own"):
            result(made, made.submit(late))
