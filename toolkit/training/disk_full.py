"""A full disk while something is saved: said as such, and nothing half-made is left in place of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import TrainingError
from toolkit.files import remove
from toolkit.machine import free_bytes, is_full, refusal

SPARE = 16_000_000  # bytes: the tokenizer, and what else stands beside tensors


@contextmanager
def saving(target: Path, needed: int, what: str) -> Iterator[None]:
    """Hold while `target`, a file or folder of about `needed` bytes, is written.

    Raises `TrainingError` with what is needed and what is free where the disk can't hold it, before writing where that
    can be told; what was written of it by then is removed. What was there before is left alone.
    """
    before = target.exists()
    if free_bytes(target) < needed:
        raise _no_space(target, needed, what)
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        if not before:
            remove(target)
        raise _no_space(target, needed, what) from None


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raises `TrainingError` where the machine refuses to write more into a run's folder."""
    try:
        yield
    except OSError as error:
        if (told := refusal(error)) is None:
            raise
        raise TrainingError(f"{folder}: {told}; then go on with --resume") from None


def tensor_bytes(values: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return sum(map(tensor_bytes, values))
    return int(values.numel() * values.element_size()) if hasattr(values, "element_size") else 0


def adapter_bytes(model: Any) -> int:
    """Bytes of what trains."""
    return tensor_bytes([parameter for parameter in model.parameters() if parameter.requires_grad])


def checkpoint_bytes(model: Any, optimizer: Any) -> int:
    """About what a checkpoint takes: the adapter, the optimizer's states, and the small files beside them."""
    states = dict(optimizer.state) if optimizer is not None else {}
    return adapter_bytes(model) + tensor_bytes(states) + SPARE


def _no_space(target: Path, needed: int, what: str) -> TrainingError:
    wanted, free = (f"{count / 1e6:,.1f} MB" for count in (needed, free_bytes(target)))
    return TrainingError(
        f"no disk space for {what}: {target} takes about {wanted}, {free} are free. Free some, then go on with --resume"
    )
