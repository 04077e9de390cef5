"""Tiny exports, and GGUF files with one fault planted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.export.shapes import adapter, base_model
from tests.tiny import split_as
from toolkit.export.export import export
from toolkit.exports import ExportFolder
from toolkit.models.families.qwen3 import QWEN2

Change = Callable[[dict[str, Any]], dict[str, Any]]


def make_export(root: Path, family: str, gguf: tuple[str, ...] = ("f16",), tokens: Sequence[str] = ()) -> Path:
    """A finished run on a tiny model, exported and not verified. `tokens` are ordinary tokens of its vocabulary."""
    more: dict[str, Any] = {"vocab_size": 416} if tokens else {}
    base = base_model(root / "base", family, hidden_size=64, intermediate_size=96, **more)
    add_tokens(base, tokens)
    if family == "qwen3":
        split_as(base, QWEN2)
    run = root / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(
        f'[model]\nname = "{base}"\n[data]\ncall_format = "json"\n[train]\nmax_length = 2048\n'
        '[[data.sources]]\nsource = "builtin:tools"\nsize = 40\nmax_tools = 2\n'
        "[eval]\nholdout = 8\nmax_new_tokens = 12\n"
    )
    adapter(run / "adapter", base)
    return export(run, gguf=gguf, verify=False).path


def add_tokens(base: Path, tokens: Sequence[str]) -> None:
    """Put ordinary tokens that no merge makes into a tiny tokenizer's vocabulary."""
    path = base / "tokenizer.json"
    spec = json.loads(path.read_text())
    first = max(max(spec["model"]["vocab"].values()), *(token["id"] for token in spec["added_tokens"])) + 1
    spec["model"]["vocab"] |= {token: number for number, token in enumerate(tokens, first)}
    path.write_text(json.dumps(spec))


def plant(
    folder: Path, *, keys: dict[str, str | int | float | list[int]] | None = None, tensors: Change | None = None
) -> None:
    """Write the folder's first GGUF anew with keys or 16-bit tensors changed, as a faulty writer would have done it."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

    path = ExportFolder(folder).ggufs()[0]
    reader = GGUFReader(path)
    changed = keys or {}
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(path.with_suffix(".new"), architecture)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture" and key not in changed:
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
    for key, value in changed.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_float32(key, value)
    held = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    for name, data in (tensors(held) if tensors else held).items():
        kind = GGMLQuantizationType.F16 if data.dtype == np.float16 else GGMLQuantizationType.F32
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)
    rehash(folder)


def rehash(folder: Path) -> None:
    """Make export.json say the hashes of the files that are there."""
    place = ExportFolder(folder)
    record = place.record()
    for file in record.files:
        file.sha256 = hashlib.sha256((folder / file.name).read_bytes()).hexdigest()
    record.save(folder)
