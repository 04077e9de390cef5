"""Weights by name, read from safetensors one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from safetensors import SafetensorError, safe_open

from toolkit import jsons
from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.machine import is_short
from toolkit.models.loading import text_name

if TYPE_CHECKING:
    from torch import Tensor


class Weights(Protocol):
    """A model's weights as a stream: every one is read when asked for and forgotten after."""

    @property
    def architecture(self) -> Architecture: ...

    def read(self, name: str) -> Tensor:
        """The float32 tensor of a name as transformers has it, all values finite. Raises `ModelError`."""
        ...


class Checkpoint:
    """The weights of a model folder, in one safetensors file or in shards.

    Raises `ModelError` when a weight is missing, of another shape than config.json says, or not a float.
    """

    def __init__(self, folder: Path, architecture: Architecture) -> None:
        self.folder = folder
        self.architecture = architecture
        self._files = {text_name(stored): (path, stored) for stored, path in _index(folder).items()}
        self._check()

    def read(self, name: str) -> Tensor:
        import torch

        tensor = self.stored(name).to(torch.float32)
        require_finite(tensor, f"{self._files[name][0]}: {name}")
        return tensor

    def stored(self, name: str) -> Tensor:
        """The tensor in the dtype that it is stored in."""
        # opened anew for each: a file's mapped pages count as this process's memory for as long as it is open
        path, stored = self._files[name]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(stored)

    def _check(self) -> None:
        wanted = self.architecture.tensors
        if missing := [name for name in wanted if name not in self._files]:
            raise ModelError(f"{self.folder}: {len(missing)} weights are missing, {missing[0]} the first")
        for path in sorted({path for path, _ in self._files.values()}):
            try:
                with safe_open(path, framework="pt") as file:
                    for name, (holder, stored) in self._files.items():
                        if name in wanted and holder == path:
                            piece = file.get_slice(stored)
                            _check_one(f"{path}: {name}", tuple(piece.get_shape()), piece.get_dtype(), wanted[name])
            except (SafetensorError, OSError) as error:
                if is_short(error):
                    raise
                raise ModelError(f"{path}: not a readable safetensors file ({error})") from None


def _check_one(where: str, shape: tuple[int, ...], dtype: str, wanted: tuple[int, ...]) -> None:
    if dtype not in ("F32", "F16", "BF16"):
        raise ModelError(f"{where} is stored as {dtype}; wanted F32, F16 or BF16: name the model's 16-bit version")
    if shape != wanted:
        rows = "; was the vocabulary resized?" if where.endswith(("embed_tokens.weight", "lm_head.weight")) else ""
        raise ModelError(f"{where} has shape {list(shape)}, but config.json says {list(wanted)}{rows}")


def _index(folder: Path) -> dict[str, Path]:
    """Which file holds which tensor."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            mapping: Mapping[str, str] = jsons.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {name: folder / file for name, file in mapping.items()}
            if missing := sorted({str(path) for path in files.values() if not path.is_file()}):
                raise ModelError(f"{index}: {', '.join(missing)} is not there; fetch the model again")
            return files
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise ModelError(f"{folder}: no *.safetensors here")
        found: dict[str, Path] = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        return found
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, ModelError) or is_short(error):
            raise
        raise ModelError(f"{folder}: the safetensors files can't be read ({error})") from None


def require_finite(tensor: Tensor, where: str) -> None:
    """Raise `ModelError` when a tensor holds NaN or infinity."""
    import torch

    # both ends are NaN where any value is, and nothing is copied
    low, high = torch.aminmax(tensor)
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = tensor.numel() - int(torch.isfinite(tensor).sum())
        raise ModelError(f"{where} holds {bad:,} values that are NaN or infinite; nothing sound can be made of it")


def stream(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 tensor) of every weight."""
    for name in weights.architecture.tensors:
        yield name, weights.read(name)
