"""An export's GGUF files read with the official `gguf` package: their keys, their tensors dequantised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.export.tensors import gguf_name, heads_of, unpermute

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**22  # values dequantised at a time


class GgufFile:
    """A GGUF, opened; tensors stay on disk until read. Raises `ModelError` when it can't be read at all."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        self.path = path
        try:
            self._reader = GGUFReader(path)
        except Exception as error:  # a file cut short fails wherever its first missing byte is
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{path}: not a readable GGUF ({first})") from None
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str) -> Any:
        """A key's value, or None. `{arch}` in the key stands for the file's architecture."""
        if "{arch}" in key:
            key = key.format(arch=self.value("general.architecture"))
        field = self._reader.fields.get(key)
        return field.contents() if field is not None else None

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.tensors[name].shape.tolist()))

    def kind(self, name: str) -> str:
        """The tensor's type, as Q8_0."""
        return str(self.tensors[name].tensor_type.name)

    def parts(self, name: str) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
        """(first row, last row + 1, float32 values) of a tensor, some rows at a time; a vector in one go."""
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        shape = self.shape(name)
        rows, columns = (shape[0], shape[1]) if len(shape) > 1 else (1, shape[0])
        step = max(1, _CHUNK // columns) if len(shape) > 1 else 1
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            data = tensor.data[start:stop] if len(shape) > 1 else tensor.data
            with np.errstate(invalid="ignore", over="ignore"):  # NaN is looked for by the caller
                values = dequantize(np.ascontiguousarray(data), tensor.tensor_type).astype(np.float32)
            yield start, stop, values.reshape((stop - start, columns) if len(shape) > 1 else shape)


class GgufWeights:
    """A GGUF's tensors as transformers names and orders them, in float32: what the file makes of the model."""

    def __init__(self, file: GgufFile, architecture: Architecture) -> None:
        self.file = file
        self.architecture = architecture

    def read(self, name: str) -> Tensor:
        import torch

        short = gguf_name(name)
        weight = torch.from_numpy(np.concatenate([values for _, _, values in self.file.parts(short)]))
        heads = heads_of(self.architecture, name)
        return weight if heads is None else unpermute(weight, heads)
