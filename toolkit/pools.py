"""Pools of processes that end, however one of them does.

A process that is killed while it sends a result leaves half of it in the pipe, and holds the lock that the others need
to send theirs: concurrent.futures then waits for ever, as for the rest of a message that nobody writes. So who waits
for a result looks whether all processes live, and a pool that is ended has its pipes closed first.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

_T = TypeVar("_T")
_PATIENCE = 2.0  # seconds between two looks


def begin() -> None:
    """In a new process of a pool that makes chats or reads them: on Ctrl-C the parent ends it, and where the parent is
    gone it ends itself."""
    gc.set_threshold(50_000)  # chats hold no circles to speak of, and are many objects
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes started in here hear no Ctrl-C, also while they import what they need; this one hears it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def submit(pool: ProcessPoolExecutor, work: Callable[..., _T], *args: Any) -> Future[_T]:
    """`pool.submit`, which may start a process, as `uninterrupted` has it."""
    with uninterrupted():
        return pool.submit(work, *args)


def result(pool: ProcessPoolExecutor, future: Future[_T], patience: float = _PATIENCE) -> _T:
    """What `future` of `pool` gives. Raises what its work raised, and BrokenProcessPool where a process has died."""
    while True:
        with contextlib.suppress(TimeoutError):
            return future.result(patience)
        if future.done():  # in time after all, or its work raised a TimeoutError of its own
            return future.result()
        if any(process.exitcode is not None for process in _processes(pool)):
            end(pool)
            raise BrokenProcessPool("a process of the pool has died")


def end(pool: ProcessPoolExecutor) -> None:
    """End all processes of the pool now; what one is in the midst of sending is lost. Its `shutdown` waits no more."""
    # this process's own ends of the pipes, which keep them open when all others are gone (private; the same names from
    # Python 3.11 to 3.14): the thread that reads results then meets their end, and the one that hands out work its own
    for queue, name in (("_result_queue", "_writer"), ("_call_queue", "_reader")):
        with contextlib.suppress(OSError, AttributeError):  # closed by now; of a pool that was shut down, none
            getattr(vars(pool)[queue], name).close()
    for process in _processes(pool):
        with contextlib.suppress(ValueError):  # closed by now
            process.kill()


def _processes(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    return list((pool._processes or {}).values())
