"""Memory that runs out where a test wants it to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.planning.ran_out import store
from toolkit.training.mixins.packed_batches import PackedBatches

ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1073741824 bytes. Error code 12 (Cannot allocate memory)"
)


class OutAt(TorchDispatchMode):
    """Raises torch's error at operation number `at`, counted from 1: each of them asks for memory. 0: never. `count`
    says how many there were; `cpu` raises what a CPU's allocator does."""

    def __init__(self, at: int, *, cpu: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at, self.cpu = at, cpu
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.at:
            if self.cpu:
                raise RuntimeError(ALLOCATOR)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def out_in_update(
    update: int, at: int, *, cpu: bool = False, times: int = 1, remembered: bool = False
) -> Iterator[list[int]]:
    """Memory runs out in update number `update` (from 1), at operation `at` of a micro-batch, or of all packed ones,
    and again at the same in the next tries, `times` in all. Yields a list of how many operations each try had, 0 where
    none was counted: after those that failed. What later runs know of it is forgotten, unless it is `remembered`."""
    usual, counts = PackedBatches.training_step, list[int]()
    left = [times]

    def training_step(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        if self.state.global_step + 1 != update:
            return usual(self, model, inputs, items)
        if at and not left[0]:
            counts.append(0)
            return usual(self, model, inputs, items)
        mode = OutAt(at, cpu=cpu)
        try:
            with mode:
                return usual(self, model, inputs, items)
        except RuntimeError:
            left[0] -= 1
            raise
        finally:
            counts.append(mode.count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackedBatches, "training_step", training_step)
        yield counts
    if not remembered:
        store().unlink(missing_ok=True)
