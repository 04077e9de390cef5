"""Base and adapter as one stream of float32 weights: W + scale * B @ A, computed when a weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.export.adapter import Adapter, Pair, open_adapter
from toolkit.export.architecture import Architecture, read_architecture
from toolkit.export.nf4 import round_trip
from toolkit.export.tensors import Checkpoint, Weights, require_finite

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.exports import ExportRecord


class Merged:
    """`Weights` of a base with its adapter merged in. `held` maps a base linear to the values that training saw."""

    def __init__(self, base: Checkpoint, adapter: Adapter | None, held: Callable[[Tensor], Tensor] | None) -> None:
        self.base = base
        self.adapter = adapter
        self._held = held
        self._quantised = frozenset(_linears(base)) if held else frozenset()

    @property
    def architecture(self) -> Architecture:
        return self.base.architecture

    def read(self, name: str) -> Tensor:
        adapter = self.adapter
        if adapter is not None and name in adapter.replaced:
            weight = adapter.tensor(adapter.replaced[name])
        elif self._held is not None and name in self._quantised:
            weight = self._held(self.base.read(name))
        else:
            weight = self.base.read(name)
        if adapter is not None and name in adapter.pairs:
            weight = _merge(weight, adapter, adapter.pairs[name])
            require_finite(weight, f"{adapter.folder}: {name}, merged,")
        return weight


def _linears(base: Checkpoint) -> Iterator[str]:
    """The layers' linear weights, which 4-bit training holds as NF4."""
    for name, _, _ in base.architecture.shape.lora_targets("all-linear"):
        yield f"{name}.weight"


def _merge(weight: Tensor, adapter: Adapter, pair: Pair) -> Tensor:
    """float32 [out, in]; the addition is done in place, so that a 1.7B model's embedding is held once."""
    import torch

    a, b = adapter.tensor(pair.a), adapter.tensor(pair.b)
    if pair.embedding:
        return weight.addmm_(a.T, b.T, alpha=pair.scale)
    weight.addmm_(b, a, alpha=pair.scale)
    if pair.magnitude is None:
        return weight
    magnitude = adapter.tensor(pair.magnitude).reshape(-1)
    return weight.mul_((magnitude / torch.linalg.vector_norm(weight, dim=1))[:, None])


def open_merged(
    base_folder: Path, adapter_folder: Path | None, *, dequant: bool = False, held_dtype: str = "bfloat16"
) -> Merged:
    """The merged weights of a base folder and an adapter folder (none: the base alone).

    `dequant` takes for every base linear what a run on NF4 weights, held as `held_dtype` before, saw of it.
    Raises `ModelError` and `RunError` for folders that do not fit.
    """
    architecture = read_architecture(base_folder)
    base = Checkpoint(base_folder, architecture)
    adapter = open_adapter(adapter_folder, architecture) if adapter_folder is not None else None
    if not dequant:
        return Merged(base, adapter, None)
    import torch

    dtype = getattr(torch, held_dtype)
    return Merged(base, adapter, lambda weight: round_trip(weight.to(dtype)).to(torch.float32))


def open_weights(record: ExportRecord) -> Weights:
    """The float32 weights that an export was made of, from its export.json."""
    return open_merged(
        Path(record.base.folder),
        Path(record.adapter) if record.adapter else None,
        dequant=record.merge_base.base == "dequant",
        held_dtype=record.merge_base.held_dtype or "bfloat16",
    )
