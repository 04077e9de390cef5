"""The files themselves: complete, finite, of the right types, described as the base is, and near the merged weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.export.merge import open_weights
from toolkit.export.verify import thresholds
from toolkit.export.verify.files import GgufFile
from toolkit.export_report import Check
from toolkit.exports import ExportFolder, ExportRecord, FileRecord
from toolkit.hashes import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

WORST = 5
_AGAIN = "Export again; if it comes back, report it with this file"

Advance = Callable[[], None]


@dataclass(slots=True)
class Examined:
    """What was found about one file. `broken`: so that it can't be run in the checks that follow."""

    record: FileRecord
    path: Path
    problems: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    gguf: GgufFile | None = None
    broken: bool = False

    def breaks(self, problem: str) -> None:
        self.problems.append(problem)
        self.broken = True


def examine(
    folder: ExportFolder, record: ExportRecord, threads: int = 1, advance: Advance = lambda: None
) -> tuple[list[Examined], list[Check]]:
    """Look at every GGUF and the merged safetensors; `advance` is called after each weight.

    Each merged weight is computed once and compared with all files.
    """
    files = [Examined(one, folder.path / one.name) for one in record.files]
    for one in files:
        _open(one, threads)
    weights = open_weights(record)
    architecture = weights.architecture
    models = [one for one in files if one.record.kind == "gguf"]
    for one in models:
        _keys(one, architecture)
        _complete(one, architecture)
    ggufs = [one for one in models if one.gguf is not None]
    merged = _MergedFiles(files, folder, record)
    for name, parts in architecture.gguf_parts.items():
        weight = weights.read(name)
        merged.compare(name, weight)
        ordered = architecture.to_gguf(name, weight)
        for one in ggufs:
            for part in parts:
                if one.gguf is not None and part.name in one.gguf.tensors and one.gguf.shape(part.name) == part.shape:
                    _compare(one, one.gguf, part.name, ordered[part.rows])
        advance()
    checks = []
    for one in files:
        checks.append(_structure_check(one))
        if one.errors:
            checks.append(_weights_check(one))
    return [one for one in files if one.record.kind == "gguf"], checks


def _open(one: Examined, threads: int) -> None:
    """The file is there, is the one that was written, and can be opened."""
    if not one.path.is_file():
        one.breaks("the file is not there")
        return
    digest = sha256_of(one.path)
    if digest != one.record.sha256:
        one.problems.append(f"sha256 is {digest[:12]}..., export.json says {one.record.sha256[:12]}...")
    if one.record.kind in ("gguf", "lora"):
        try:
            one.gguf = GgufFile(one.path, threads)
        except ModelError as error:
            one.breaks(str(error))
            return
        if one.record.kind == "lora":
            _finite(one, one.gguf)


def _finite(one: Examined, file: GgufFile) -> None:
    for name in file.tensors:
        one.types[file.kind(name)] += 1
        if not all(file.parts(name, lambda start, stop, values: bool(np.isfinite(values).all()))):
            one.problems.append(f"{name} holds NaN or infinity")


def _keys(one: Examined, architecture: Architecture) -> None:
    """The keys that decide what llama.cpp computes, against the base's config.json."""
    file = one.gguf
    if file is None:
        return
    shape = architecture.shape
    wanted: dict[str, Any] = {
        "general.architecture": architecture.arch,
        "{arch}.block_count": shape.num_hidden_layers,
        "{arch}.embedding_length": shape.hidden_size,
        "{arch}.feed_forward_length": shape.intermediate_size,
        "{arch}.attention.head_count": shape.num_attention_heads,
        "{arch}.attention.head_count_kv": architecture.family.kv_heads(shape),
        "{arch}.attention.key_length": shape.head_dim,
        "{arch}.attention.value_length": shape.head_dim,
        "{arch}.attention.layer_norm_rms_epsilon": architecture.rms_norm_eps,
        "{arch}.rope.freq_base": architecture.rope_theta,
        "{arch}.context_length": architecture.context_length,
    }
    for key, value in wanted.items():
        found = file.value(key)
        if isinstance(value, float):
            same = isinstance(found, float | int) and math.isclose(found, value, rel_tol=1e-5)
        else:
            same = found == value
        if not same:
            shown = key.format(arch=architecture.arch)
            problem = f"{shown} is {found!r}, the base's config.json says {value!r}"
            # another rope or norm can be run, and measured; other sizes can't
            if isinstance(value, float) or key == "{arch}.context_length":
                one.problems.append(problem)
            else:
                one.breaks(problem)


def _complete(one: Examined, architecture: Architecture) -> None:
    """Every tensor is there with its shape and a type that belongs into such a file; no other one is."""
    file = one.gguf
    if file is None:
        return
    wanted = {part.name: part for parts in architecture.gguf_parts.values() for part in parts}
    missing = [name for name in wanted if name not in file.tensors]
    extra = [name for name in file.tensors if name not in wanted and name not in architecture.rope_factors]
    if missing:
        one.breaks(f"{len(missing)} of {len(wanted)} tensors are missing, {missing[0]} the first")
    if extra:
        one.breaks(f"{len(extra)} tensors are not of this model, {extra[0]} the first")
    for name, part in wanted.items():
        if name in missing:
            continue
        kind = file.kind(name)
        one.types[kind] += 1
        if file.shape(name) != part.shape:
            one.breaks(f"{name} has shape {list(file.shape(name))}, wanted {list(part.shape)}")
        allowed = frozenset({"F32"}) if part.wide else thresholds.TENSOR_TYPES[one.record.type]
        if kind not in allowed:
            one.problems.append(f"{name} is {kind}, wanted {' or '.join(sorted(allowed))}")


def _compare(one: Examined, file: GgufFile, name: str, weight: Tensor) -> None:
    """The tensor's relative RMS error: ||file - merged|| / ||merged||."""
    reference = weight.numpy()

    def part(start: int, stop: int, values: Any) -> tuple[int, float, float]:
        """Values that are not finite, sum of squared errors, sum of squares."""
        bad = int(values.size - np.isfinite(values).sum())
        values -= reference[start:stop]
        wrong = float(np.square(values, out=values).sum(dtype=np.float64))
        return bad, wrong, float(np.square(reference[start:stop]).sum(dtype=np.float64))

    parts = list(file.parts(name, part))
    if bad := sum(part[0] for part in parts):
        one.breaks(f"{name} holds {bad:,} values that are NaN or infinite")
        return
    wrong, whole = sum(part[1] for part in parts), sum(part[2] for part in parts)
    _note_error(one, name, wrong, whole, thresholds.RMSE[file.kind(name)])


def _note_error(one: Examined, name: str, wrong: float, whole: float, limit: float) -> None:
    error = math.sqrt(wrong / whole) if whole else math.sqrt(wrong)
    one.errors[name] = error
    if error > limit:
        one.over.append(f"{name} {error:.2g} (at most {limit:.2g})")


class _MergedFiles:
    """merged/: its safetensors against the merged weights, rounded to their dtype."""

    def __init__(self, files: Sequence[Examined], folder: ExportFolder, record: ExportRecord) -> None:
        self.files = [one for one in files if one.record.kind == "merged" and one.path.is_file()]
        self.dtype = str(record.merged["dtype"]) if record.merged else ""
        self.limit = thresholds.RMSE["BF16" if self.dtype == "bfloat16" else "F16"]
        self.places = {name: one for one in self.files for name in self._names(one)}
        self.missing: list[str] = []

    def _names(self, one: Examined) -> list[str]:
        try:
            with safe_open(one.path, framework="pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError) as error:
            one.problems.append(f"not a readable safetensors file ({error})")
            return []

    def compare(self, name: str, weight: Tensor) -> None:
        import torch

        if not self.files:
            return
        if name not in self.places:
            self.files[0].problems.append(f"{name} is in no file of merged/")
            return
        one = self.places[name]
        with safe_open(one.path, framework="pt") as file:
            stored = file.get_tensor(name)
        one.types[{"bfloat16": "BF16", "float16": "F16"}.get(self.dtype, str(stored.dtype))] += 1
        if str(stored.dtype) != f"torch.{self.dtype}":
            one.problems.append(f"{name} is {stored.dtype}, wanted {self.dtype}")
        elif stored.shape != weight.shape:
            one.problems.append(f"{name} has shape {list(stored.shape)}, wanted {list(weight.shape)}")
        elif not bool(torch.isfinite(stored).all()):
            one.problems.append(f"{name} holds NaN or infinity")
        else:
            wrong = float((stored.to(torch.float32) - weight).square().sum(dtype=torch.float64))
            _note_error(one, name, wrong, float(weight.square().sum(dtype=torch.float64)), self.limit)


def _structure_check(one: Examined) -> Check:
    numbers = {"bytes": one.record.bytes, "sha256": one.record.sha256, "tensor_types": dict(one.types)}
    if one.problems:
        more = f", and {len(one.problems) - 1} more" if len(one.problems) > 1 else ""
        return Check(
            "structure", one.record.name, "fail", one.problems[0] + more, numbers, one.problems[:50], advice=_AGAIN
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(one.types.items(), key=lambda item: -item[1]))
    tensors = sum(one.types.values())
    return Check("structure", one.record.name, "pass", f"{tensors} tensors, all finite: {kinds}", numbers)


def _weights_check(one: Examined) -> Check:
    worst = sorted(one.errors.items(), key=lambda item: -item[1])[:WORST]
    numbers = {
        "worst": [{"tensor": name, "relative_rms_error": error} for name, error in worst],
        "mean": sum(one.errors.values()) / len(one.errors),
        "tensors": len(one.errors),
    }
    details = [f"{name}: relative RMS error {error:.2e}" for name, error in worst]
    if one.over:
        summary = f"{len(one.over)} of {len(one.errors)} tensors are too far from the merged weights: {one.over[0]}"
        return Check("weights", one.record.name, "fail", summary, numbers, one.over[:50] + details, advice=_AGAIN)
    summary = f"relative RMS error at most {worst[0][1]:.2g} ({worst[0][0]}), {numbers['mean']:.2g} on average"
    return Check("weights", one.record.name, "pass", summary, numbers, details)
