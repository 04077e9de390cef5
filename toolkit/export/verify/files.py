"""An export's GGUF files: their keys, and their tensors dequantised by the official `gguf` package."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.gguf_raw import RawTensor, read_raw
from toolkit.inference.gguf_check import check_tensors
from toolkit.machine import is_short

if TYPE_CHECKING:
    from torch import Tensor

Values = npt.NDArray[np.float32]
Found = TypeVar("Found")

_CHUNK = 2**22  # values dequantised at a time


class GgufFile:
    """A GGUF, opened; tensors stay on disk until read, some rows at a time, by up to `threads` threads.

    Its header is read by `ggufraw`: the `gguf` package makes objects of every token and merge, which takes seconds.
    Raises `ModelError` when it can't be read at all.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = path
        self.threads = threads
        try:
            self._raw = read_raw(path)
        except OSError as error:
            if is_short(error):
                raise
            raise ModelError(f"{path}: can't be read ({error.strerror})") from None
        self.tensors = {tensor.name: tensor for tensor in self._raw.tensors}
        check_tensors(self._raw)

    def value(self, key: str) -> Any:
        """A key's value, or None. `{arch}` in the key stands for the file's architecture."""
        if "{arch}" in key:
            key = key.format(arch=self._raw.value("general.architecture"))
        return self._raw.value(key)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def kind(self, name: str) -> str:
        """The tensor's type, as Q8_0."""
        return str(_type(self.tensors[name].kind, self.path).name)

    def parts(self, name: str, each: Callable[[int, int, Values], Found]) -> Iterator[Found]:
        """What `each` makes of (first row, last row + 1, float32 values) of all parts of a tensor, in their order.

        A vector is one part, its rows 0 to its length.
        """
        shape = self.shape(name)
        step = max(1, _CHUNK // shape[-1]) if len(shape) > 1 else shape[0]
        bounds = [(start, min(shape[0], start + step)) for start in range(0, shape[0], step)]
        one = functools.partial(self._part, self.tensors[name], each)
        if self.threads == 1 or len(bounds) == 1:
            yield from map(one, bounds)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(one, bounds)

    def _part(self, tensor: RawTensor, each: Callable[[int, int, Values], Found], bounds: tuple[int, int]) -> Found:
        from gguf.quants import dequantize

        start, stop = bounds
        rows, row = self._layout(tensor)
        first, count = (start, stop - start) if len(tensor.shape) > 1 else (0, rows)
        with self.path.open("rb") as file:
            file.seek(tensor.offset + first * row)
            data = np.fromfile(file, dtype=np.uint8, count=count * row).reshape(count, row)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN is looked for by the caller
            values = dequantize(data, _type(tensor.kind, self.path)).astype(np.float32, copy=False)
        return each(start, stop, values.reshape(stop - start, *tensor.shape[1:]))

    def _layout(self, tensor: RawTensor) -> tuple[int, int]:
        """(rows, bytes of a row)"""
        from gguf.constants import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[_type(tensor.kind, self.path)]
        return math.prod(tensor.shape[:-1]), tensor.shape[-1] // block * size


def _type(kind: int, path: Path) -> Any:
    from gguf.constants import GGMLQuantizationType

    try:
        return GGMLQuantizationType(kind)
    except ValueError:
        raise ModelError(f"{path}: holds a tensor of type {kind}, which the gguf package does not know") from None


class GgufWeights:
    """A GGUF's tensors as transformers names and orders them, in float32: what the file makes of the model."""

    def __init__(self, file: GgufFile, architecture: Architecture) -> None:
        self.file = file
        self.architecture = architecture

    def read(self, name: str) -> Tensor:
        import torch

        parts = [self._part(part.name) for part in self.architecture.gguf_parts[name]]
        whole = torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return self.architecture.from_gguf(name, whole)

    def _part(self, short: str) -> npt.NDArray[np.float32]:
        whole = np.empty(self.file.shape(short), dtype=np.float32)

        def keep(start: int, stop: int, values: Values) -> None:
            whole[start:stop] = values

        for _ in self.file.parts(short, keep):
            pass
        return whole
