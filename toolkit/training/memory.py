"""Memory of a process and its GPU while it trains: how much, how it is given back, what is tried again without it."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import torch
from transformers import TrainerCallback

from toolkit.kernels.cuda_graphs import peak_allocated
from toolkit.training.out_of_memory import memory_told

T = TypeVar("T")


def memory_bytes() -> int:
    """Peak bytes that torch allocated on the GPU, or this process's resident bytes on a CPU."""
    if torch.cuda.is_available():
        return peak_allocated()

    return int(_process(os.getpid()).memory_info().rss)


def peak_resident() -> int:
    """The most bytes of the machine's memory that this process has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


@functools.cache
def _process(pid: int) -> psutil.Process:
    """To be made once: that reads more of /proc than its memory is."""
    return psutil.Process(pid)


def with_memory(work: Callable[[], T]) -> T:
    """What `work` gives; made once more, with all memory given back that nothing needs, where it runs out."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if memory_told(error) is None:
            raise
    release_memory()  # after the except block, whose traceback would keep tensors alive
    return work()


class HeapTrimmer(TrainerCallback):
    """On a CPU, gives freed memory back to the system when there has come to be more of it than an update needs.

    Padded micro-batches of many lengths fragment glibc's heap: without this, resident memory doubles on the way. Memory
    that was given back must be fetched again, page by page, which takes a fifth of an update's time, so it is done only
    when an update leaves the process `GROWN` times as large as those that began with a trimmed heap did.
    """

    GROWN = 1.25

    def __init__(self, trim: Callable[[], object] | None = None, resident: Callable[[], int] = memory_bytes) -> None:
        self.trim, self.resident = trim or malloc_trim(), resident
        self.needed = 0  # bytes: the most that an update left behind that began with a trimmed heap
        self.trimmed = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trim is None:
            return
        bytes_now = self.resident()
        if self.trimmed:
            self.needed, self.trimmed = max(self.needed, bytes_now), False
        elif bytes_now > self.GROWN * self.needed:
            self.trim()
            self.trimmed = True


def release_memory() -> None:
    """Give what nothing refers to any more back to the machine and the GPU: trainers refer to themselves."""
    gc.collect()
    if (trim := malloc_trim()) is not None:
        trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def malloc_trim() -> Callable[[], object] | None:
    """glibc's, where that is what there is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return None if trim is None else lambda: trim(0)
