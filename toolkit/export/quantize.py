"""Quantised GGUFs from the 16-bit one: which tensor becomes which type, and who computes it.

The types of a `_M` mixture are llama.cpp's own choice (src/llama-quant.cpp): half of the value and down projections get
more bits. Rows that 256 does not divide fall back to a type with blocks of 32, as there.

Who computes, in this order: llama.cpp through llama-cpp-python, where that is installed; `llama-quantize`, from
$TOOLKIT_LLAMA_CPP or PATH; libgguf, whose bytes were compared with llama.cpp's; numpy, for Q8_0 alone, which is exact
and needs nothing, so that it comes first there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import EngineError, did_you_mean
from toolkit.export.quantizers import External, find_external, load_libgguf
from toolkit.export.writer import FILE_TYPES, QUANTIZATION_VERSION, Advance, chunks, copy_keys, rows_of
from toolkit.recipe.checks import GGUF_QUANTS

RowQuantizer = Callable[[npt.NDArray[np.float32], str], npt.NDArray[np.uint8]]
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
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
        near = did_you_mean(name.lower(), GGUF_QUANTS) or f", wanted one of {', '.join(GGUF_QUANTS)}"
        raise EngineError(f"{name} is no GGUF type that can be written{near}")
    return name.upper()


def tensor_type(name: str, shape: tuple[int, ...], quant: str, layers: int, tied: bool) -> str:
    """The type of a tensor (GGUF's name; shape as numpy has it) in a file of type `quant`."""
    if len(shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return "F32"
    columns = shape[-1]
    wanted = _MIXTURE[quant]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        if wanted != "Q8_0":
            wanted = "Q8_0" if columns % 256 else "Q6_K"
    elif quant in ("Q4_K_M", "Q5_K_M") and (found := re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)):
        wanted = "Q6_K" if _more_bits(int(found[1]), layers) else wanted
    if wanted in _FALLBACK and columns % 256:
        wanted = _FALLBACK[wanted]
    return wanted if columns % 32 == 0 else "F16"


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def fallback_note(quant: str, shapes: dict[str, tuple[int, ...]], layers: int, tied: bool) -> str | None:
    """One line about the tensors whose rows 256 does not divide, or None."""
    if quant == "Q8_0":
        return None
    odd = [tensor_type(n, s, quant, layers, tied) for n, s in shapes.items() if len(s) > 1 and s[-1] % 256]
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
    from importlib import metadata

    if quant == "Q8_0":
        return _numpy_rows, f"numpy (gguf {metadata.version('gguf')})"
    return load_libgguf()


def _numpy_rows(rows: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
    import gguf

    return gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])


def _rewrite(
    source: Path, target: Path, quant: str, quantize: RowQuantizer, backend: str, advance: Advance
) -> Quantized:
    import gguf

    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    layers = int(reader.fields[f"{arch}.block_count"].contents())
    shapes = {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in reader.tensors}
    tied = "output.weight" not in shapes
    kinds = {name: tensor_type(name, shape, quant, layers, tied) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(target, arch)
    copy_keys(reader, writer, frozenset(("general.file_type", "general.quantization_version")))
    writer.add_file_type(FILE_TYPES[quant])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    for name, shape in shapes.items():
        kind = gguf.GGMLQuantizationType[kinds[name]]
        if kinds[name] in ("F32", "F16"):
            dtype = np.dtype(np.float32 if kinds[name] == "F32" else np.float16)
            writer.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, raw_dtype=kind)
        else:
            packed = gguf.quants.quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), int(np.prod(packed)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    del reader
    try:
        for index, (name, shape) in enumerate(shapes.items()):
            # opened anew now and then: the file's mapped pages count as this process's memory
            if index % 32 == 0:
                tensors = gguf.GGUFReader(source).tensors
            writer.write_tensor_data(_convert(tensors[index], shape, kinds[name], quantize))
            advance(4 * int(np.prod(shape)))
    finally:
        writer.close()
    note = fallback_note(quant, shapes, layers, tied)
    return Quantized(backend, dict(Counter(kinds.values())), [note] if note else [])


def _convert(tensor: Any, shape: tuple[int, ...], kind: str, quantize: RowQuantizer) -> npt.NDArray[Any]:
    import gguf

    if kind == "F32":
        return np.asarray(tensor.data, dtype=np.float32)
    if kind == "F16":
        return rows_of(tensor, 0, shape[0]).astype(np.float16)
    packed = gguf.quants.quant_shape_to_byte_shape(shape, gguf.GGMLQuantizationType[kind])
    found = np.empty(packed, dtype=np.uint8)
    for start, stop in chunks(shape[0], shape[-1]):
        found[start:stop] = quantize(np.ascontiguousarray(rows_of(tensor, start, stop)), kind)
    return found


def _run_external(external: External, source: Path, target: Path, quant: str, advance: Advance) -> Quantized:
    import gguf

    external.quantize(source, target, quant)
    reader = gguf.GGUFReader(target)
    shapes = {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in reader.tensors}
    advance(4 * sum(int(np.prod(shape)) for shape in shapes.values()))
    arch = reader.fields["general.architecture"].contents()
    layers = int(reader.fields[f"{arch}.block_count"].contents())
    note = fallback_note(quant, shapes, layers, "output.weight" not in shapes)
    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return Quantized(external.name, dict(kinds), [note] if note else [])
