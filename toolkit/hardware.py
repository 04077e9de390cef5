"""What this machine can do, and how many of its cores are free."""

from __future__ import annotations

import functools
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

AMPERE = (8, 0)  # the first compute capability with bfloat16 and flash attention
FLASH4 = (9, 10)  # majors of compute capabilities for which FlashAttention 4 has kernels forward and backward
BF16_FLAGS = ("avx512_bf16", "amx_bf16")  # a CPU with one of them has bfloat16 products


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device: name, memory in bytes, compute capability as (major, minor)."""

    name: str
    memory: int
    capability: tuple[int, int]

    @property
    def has_bf16(self) -> bool:
        return self.capability >= AMPERE


@dataclass(frozen=True, slots=True)
class Hardware:
    gpu: Gpu | None
    cpu: str
    cores: int
    cpu_bf16: bool
    memory: int

    @property
    def device_memory(self) -> int:
        """Bytes of the device that trains: the GPU, or else the machine."""
        return self.memory if self.gpu is None else self.gpu.memory


@functools.cache
def detect() -> Hardware:
    """Look at the machine once; imports torch for the GPU."""
    import torch  # takes seconds; what plans for another machine does without

    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = Gpu(properties.name, properties.total_memory, (properties.major, properties.minor))
    flags = cpu_flags()
    return Hardware(
        gpu=gpu,
        cpu=cpu_name(),
        cores=usable_cores(),
        cpu_bf16=not flags.isdisjoint(BF16_FLAGS),
        memory=psutil.virtual_memory().total,
    )


def usable_cores() -> int:
    """Cores this process may run on (which a container or taskset may have narrowed)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class FreeCores:
    """How many usable cores other processes leave free, judged from the CPU time since the last look.

    Threads that wait for each other at every matrix product are as slow as the slowest of them, so a second thread on
    a core that another process holds makes training slower, not faster.
    """

    def __init__(self) -> None:
        self._last = self._read()

    def look(self) -> int | None:
        """Free cores since the last look (at least 1), or None when that was less than a second ago."""
        now, busy, own = self._read()
        seconds = now - self._last[0]
        if seconds < 1.0:
            return None
        others = max(0.0, (busy - self._last[1]) - (own - self._last[2])) / seconds
        self._last = (now, busy, own)
        return max(1, min(usable_cores(), round((os.cpu_count() or 1) - others)))

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """(wall clock, CPU seconds of the machine, CPU seconds of this process)."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return time.monotonic(), sum(times[:8]) - idle, time.process_time()


def free_cores() -> int:
    """Usable cores less those that other processes keep busy now; takes a second."""
    cores = FreeCores()
    time.sleep(1.01)
    return cores.look() or usable_cores()


def cpu_flags() -> set[str]:
    """The CPU's feature flags as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    line = next((line for line in text.splitlines() if line.startswith("model name")), "")
    return line.partition(":")[2].strip() or platform.machine()
