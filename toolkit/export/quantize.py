"""Quantised GGUFs from the 16-bit one: which tensor becomes which type, and who computes it.

The types of a `_M` mixture are llama.cpp's own choice (src/llama-quant.cpp): half of the value and down projections get
more bits; what holds values together with queries and keys counts among the former. Rows that 256 does not divide fall
back to a type with blocks of 32, as there.

Who computes, in this order: llama.cpp through llama-cpp-python, where that is installed; `llama-quantize`, from
$TOOLKIT_LLAMA_CPP or PATH; libgguf, whose bytes were compared with llama.cpp's; numpy, for Q8_0 alone, which is exact
and needs nothing, so that it comes first there.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import EngineError, ModelError
from toolkit.export.quantizers import External, find_external, load_libgguf
from toolkit.export.writer import FILE_TYPES, QUANTIZATION_VERSION, Advance
from toolkit.gguf_raw import pad, read_bytes, read_raw, uint32_key, write_header
from toolkit.hardware import usable_cores
from toolkit.recipe.checks import GGUF_QUANTS, no_quant
from toolkit.versions import version_of

RowQuantizer = Callable[[npt.NDArray[np.float32], str], npt.NDArray[np.uint8]]
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_SENSITIVE = re.compile(r"blk\.(\d+)\.(attn_v|attn_qkv|ffn_down)\.weight")
_CONVOLUTIONS = ("shortconv.conv.weight", "ssm_conv1d.weight")  # matrices of a few columns, which stay as they are
_MIXTURE = {"Q8_0": "Q8_0", "Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q4_K_M": "Q4_K"}


@dataclass(frozen=True, slots=True)
class Quantized:
    """How a file came about. `tensor_types` counts tensors by type."""

    backend: str
    tensor_types: dict[str, int]
    notes: list[str]


def quant_type(name: str) -> str:
    """`q4_k_m` -> `Q4_K_M`. Raises `EngineError` for a name that is none, with the nearest."""
    if name.lower() not in GGUF_QUANTS:
        raise EngineError(no_quant(name))
    return name.upper()


def tensor_type(
    name: str, shape: tuple[int, ...], quant: str, layers: int, tied: bool, valued: Sequence[int] | None = None
) -> str:
    """The type of a tensor (GGUF's name; shape as numpy has it) in a file of type `quant`.

    `valued`: the layers that project to values, where not all do.
    """
    if len(shape) < 2 or name.endswith(("_norm.weight", *_CONVOLUTIONS)) or not name.endswith(".weight"):
        return "F32"
    columns = shape[-1]
    wanted = _MIXTURE[quant]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        if wanted != "Q8_0":
            wanted = "Q8_0" if columns % 256 else "Q6_K"
    elif quant in ("Q4_K_M", "Q5_K_M") and (found := _SENSITIVE.fullmatch(name)):
        place, among = int(found[1]), layers
        if valued is not None and found[2] != "ffn_down":
            place, among = valued.index(place), len(valued)
        wanted = "Q6_K" if _more_bits(place, among) else wanted
    if wanted in _FALLBACK and columns % 256:
        wanted = _FALLBACK[wanted]
    return wanted if columns % 32 == 0 else "F16"


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _valued(names: Iterable[str]) -> list[int]:
    found = (_SENSITIVE.fullmatch(name) for name in names)
    return sorted(int(one[1]) for one in found if one and one[2] != "ffn_down")


def fallback_note(quant: str, shapes: dict[str, tuple[int, ...]], layers: int, tied: bool) -> str | None:
    """One line about the tensors whose rows 256 does not divide, or None."""
    if quant == "Q8_0":
        return None
    valued = _valued(shapes)
    odd = [tensor_type(n, s, quant, layers, tied, valued) for n, s in shapes.items() if len(s) > 1 and s[-1] % 256]
    odd = [kind for kind in odd if kind != "F32"]
    if not odd:
        return None
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(odd).items()))
    return f"256 does not divide the rows of {len(odd)} tensors, so they take other types, as in llama.cpp: {kinds}"


def quantize_gguf(source: Path, target: Path, quant: str, advance: Advance = lambda count: None) -> Quantized:
    """Write `target` of type `quant` (Q8_0, Q6_K, Q5_K_M, Q4_K_M) from a 16-bit GGUF.

    `advance` is told the bytes of float32 done. Raises `EngineError` when nothing here can compute the type.
    """
    external = find_external() if quant != "Q8_0" else None
    if external is not None:
        return _run_external(external, source, target, quant, advance)
    rows, backend = row_quantizer(quant)
    return _rewrite(source, target, quant, rows, backend, advance)


def backend_for(quant: str) -> str:
    """Who would compute this type here. Raises `EngineError` when nobody can."""
    if quant in ("F16", "BF16"):
        return "torch"
    external = find_external() if quant != "Q8_0" else None
    return external.name if external is not None else row_quantizer(quant)[1]


def row_quantizer(quant: str) -> tuple[RowQuantizer, str]:
    """A function of (float32 rows, type) to bytes, and its name. Raises `EngineError`."""
    if quant == "Q8_0":
        return _numpy_rows, f"numpy (gguf {version_of('gguf')})"
    return load_libgguf()


def _numpy_rows(rows: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
    import gguf

    return gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])


def _rewrite(
    source: Path, target: Path, quant: str, quantize: RowQuantizer, backend: str, advance: Advance
) -> Quantized:
    import gguf

    raw = read_raw(source)
    layers = raw.number(f"{raw.text('general.architecture')}.block_count")
    shapes = {tensor.name: tensor.shape for tensor in raw.tensors}
    tied = "output.weight" not in shapes
    valued = _valued(shapes)
    kinds = {name: tensor_type(name, shape, quant, layers, tied, valued) for name, shape in shapes.items()}
    ids = {name: gguf.GGMLQuantizationType[kind] for name, kind in kinds.items()}
    packed = {name: gguf.quants.quant_shape_to_byte_shape(shape, ids[name]) for name, shape in shapes.items()}
    keys = {
        **raw.keys,
        "general.file_type": uint32_key("general.file_type", FILE_TYPES[quant]),
        "general.quantization_version": uint32_key("general.quantization_version", QUANTIZATION_VERSION),
    }
    infos = [(name, shape, int(ids[name]), math.prod(packed[name])) for name, shape in shapes.items()]
    workers = usable_cores()  # they never wait for one another, so a busy core costs no more than its share
    with source.open("rb") as reading, target.open("wb") as writing, ThreadPoolExecutor(workers) as pool:
        write_header(writing, keys, infos)
        for tensor in raw.tensors:
            rows, columns = math.prod(tensor.shape[:-1]), tensor.shape[-1]
            width = 4 if tensor.kind == gguf.GGMLQuantizationType.F32 else 2
            parts = chunks(rows, columns)
            # a few pieces at a time, so that no more than those are held
            while batch := list(itertools.islice(parts, workers)):
                read = [
                    read_bytes(reading, tensor.offset + start * columns * width, (stop - start) * columns * width)
                    for start, stop in batch
                ]
                convert = partial(_convert, source=tensor.kind, columns=columns, kind=kinds[tensor.name], by=quantize)
                for packed_rows in pool.map(convert, read):
                    packed_rows.tofile(writing)
                advance(4 * columns * sum(stop - start for start, stop in batch))
            pad(writing)
    note = fallback_note(quant, shapes, layers, tied)
    return Quantized(backend, dict(Counter(kinds.values())), [note] if note else [])


def floats(raw: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.float32]:
    """float32 values of a tensor's bytes. Raises `ModelError` for a type of less than 16 bits."""
    import gguf

    if kind == gguf.GGMLQuantizationType.F32:
        return raw.view(np.float32)
    if kind == gguf.GGMLQuantizationType.F16:
        return raw.view(np.float16).astype(np.float32)
    if kind == gguf.GGMLQuantizationType.BF16:
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    raise ModelError(f"a tensor is {gguf.GGMLQuantizationType(kind).name}: quants are made from 16-bit files only")


def _convert(raw: npt.NDArray[np.uint8], *, source: int, columns: int, kind: str, by: RowQuantizer) -> npt.NDArray[Any]:
    """Rows of the 16-bit file in their new type."""
    rows = floats(raw, source).reshape(-1, columns)
    if kind == "F32":
        return rows
    return rows.astype(np.float16) if kind == "F16" else by(rows, kind)


def chunks(rows: int, columns: int, limit: int = 2**21) -> Iterator[tuple[int, int]]:
    """Row ranges of at most `limit` values, which bounds memory."""
    step = max(1, limit // columns)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _run_external(external: External, source: Path, target: Path, quant: str, advance: Advance) -> Quantized:
    import gguf

    external.quantize(source, target, quant)
    raw = read_raw(target)
    shapes = {tensor.name: tensor.shape for tensor in raw.tensors}
    advance(4 * sum(math.prod(shape) for shape in shapes.values()))
    layers = raw.number(f"{raw.text('general.architecture')}.block_count")
    note = fallback_note(quant, shapes, layers, "output.weight" not in shapes)
    kinds = Counter(gguf.GGMLQuantizationType(tensor.kind).name for tensor in raw.tensors)
    return Quantized(external.name, dict(kinds), [note] if note else [])
