"""What this machine can do, and how many of its cores are free."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device: name, memory in bytes, compute capability as (major, minor)."""

    name: str
    memory: int
    capability: tuple[int, int]

    @property
    def has_bf16(self) -> bool:
        return self.capability >= (8, 0)


@dataclass(frozen=True, slots=True)
class Hardware:
    gpu: Gpu | None
    cpu: str
    cores: int
    cpu_bf16: bool
    memory: int


@functools.cache
def detect() -> Hardware:
    """Look at the machine once; imports torch for the GPU."""
    import psutil
    import torch

    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = Gpu(properties.name, properties.total_memory, (properties.major, properties.minor))
    flags = cpu_flags()
    return Hardware(
        gpu=gpu,
        cpu=cpu_name(),
        cores=usable_cores(),
        cpu_bf16=bool({"avx512_bf16", "amx_bf16"} & flags),
        memory=psutil.virtual_memory().total,
    )


def usable_cores() -> int:
    """Cores this process may run on (which a container or taskset may have narrowed)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores(seconds: float = 0.4) -> int:
    """Usable cores less those that other processes kept busy during `seconds`; at least 1.

    Threads that spin at a barrier while another process holds their core make two threads slower than one.
    """
    import psutil

    # this process sleeps while it measures, so all that is busy is others'
    busy = sum(psutil.cpu_percent(interval=seconds, percpu=True)) / 100
    return max(1, min(usable_cores(), round(usable_cores() - busy)))


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
