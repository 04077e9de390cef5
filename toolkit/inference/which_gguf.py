"""Which GGUF of an export folder answers where several lie in it and none was named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from toolkit.exports import ExportFolder
from toolkit.gguf_raw import read_raw
from toolkit.inference.gguf_check import check_gguf, read_key
from toolkit.words import typed

BESIDE = 2**30  # bytes that llama.cpp takes beside weights and context: its buffers, and prompts that it keeps
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Taken:
    """A file, and what to say of it: of how many it is, and how another is taken. Nothing of a file without others."""

    path: Path
    note: str = ""


def take(export: ExportFolder, verb: str, context: int, parallel: int = 1) -> Taken | None:
    """The most exact file that fits into free memory with room for `parallel` chats of `context` tokens, else the
    smallest; None where there is no file. `verb`: the command that takes it.

    Q8_0 comes before 16 bits, as it answers as they do from half the memory; with fewer bits more answers change
    (docs/benchmarks/2026-12-01-quality.md). Raises `ModelError` for a file that llama.cpp can't be given.
    """
    kept = [(file.type, export.path / file.name) for file in export.record().files if file.kind == "gguf"]
    kept = [(kind, path) for kind, path in kept if path.is_file()]
    files = [path for _, path in sorted(kept, key=lambda one: (one[0] == "Q8_0", one[1].stat().st_size), reverse=True)]
    if len(files) < 2:
        return Taken(files[0]) if files else None
    free = psutil.virtual_memory().available
    path = next((one for one in files if memory_of(one, context, parallel) <= free), None)
    smallest = min(files, key=lambda one: one.stat().st_size)
    why = ""
    if path != files[0]:
        needs = memory_of(files[0], context, parallel) / GIB
        finer = "the most exact that fits" if path else "the smallest"
        why = f", {finer}: {files[0].name} needs {needs:.1f} GiB, and {free / GIB:.1f} GiB are free"
    path = path or smallest
    other = smallest if smallest != path else files[0]
    return Taken(
        path, f"{path.name} is taken of {len(files)} GGUF files{why}; to take another, name it: {typed(verb, other)}"
    )


def memory_of(path: Path, context: int, parallel: int) -> int:
    """Bytes that llama.cpp needs at most to answer from a file: its weights, keys and values in 16 bits, and what is
    beside. Windows of attention are not counted as smaller."""
    check_gguf(path)
    raw = read_raw(path)
    arch = read_key(raw, "general.architecture")

    def value(key: str) -> int:
        found = read_key(raw, f"{arch}.{key}") or 0
        return max(found) if isinstance(found, list) else int(found)

    layers, heads = value("block_count"), value("attention.head_count")
    width = value("attention.key_length") or value("embedding_length") // heads
    tokens = min(context, value("context_length")) * parallel
    cells = layers * (value("attention.head_count_kv") or heads) * width * tokens
    return path.stat().st_size + 2 * 2 * cells + BESIDE
