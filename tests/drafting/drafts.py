"""Data in every form, and the recipe that `toolkit init` writes for it."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.data.toys import ADD, weather_row
from toolkit.drafting.draft import draft
from toolkit.engines.recipes import load
from toolkit.planning.cards import SeenGpu
from toolkit.recipe import LoadedRecipe

Row = dict[str, Any]
CALL = '{"name": "add", "arguments": {"a": 2, "b": 3}}'
TOOLS = json.dumps([ADD])
T4 = SeenGpu("Tesla T4", 15 * 2**30, (7, 5), "550.54")
L4 = SeenGpu("NVIDIA L4", 24 * 2**30, (8, 9), "550.54")


def said(name: str, question: str, answer: str) -> list[Row]:
    role, text = ("from", "value") if name != "messages" else ("role", "content")
    return [{role: "user", text: question}, {role: "assistant", text: answer}]


FORMATS: dict[str, Callable[[int], Row]] = {
    "messages": lambda i: weather_row(f"City {i}"),
    "sharegpt": lambda i: {
        "conversations": [
            {"from": "human", "value": f"{i}: 2 and 3?"},
            {"from": "function_call", "value": CALL},
            {"from": "observation", "value": "5"},
            {"from": "gpt", "value": "5."},
        ],
        "tools": TOOLS,
    },
    "alpaca": lambda i: {"instruction": "Add.", "input": f"{i} and 2", "output": str(i + 2)},
    "prompt_completion": lambda i: {"prompt": f"{i} and 2?", "completion": str(i + 2)},
    "xlam": lambda i: {"query": f"{i}: 2 and 3?", "tools": TOOLS, "answers": f"[{CALL}]"},
    "hermes": lambda i: {
        "conversations": [
            {"from": "system", "value": f"You may call <tools>{TOOLS}</tools>"},
            *said("hermes", f"{i}: 2 and 3?", f"<tool_call>\n{CALL}\n</tool_call>"),
        ]
    },
    "glaive": lambda i: {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
        + json.dumps(ADD["function"], indent=4),
        "chat": f"USER: {i}: 2 and 3?\n\n\nASSISTANT: <functioncall> "
        '{"name": "add", "arguments": \'{"a": 2, "b": 3}\'} <|endoftext|>\n\n\nFUNCTION RESPONSE: {"sum": 5}\n\n\n'
        "ASSISTANT: It is 5. <|endoftext|>\n\n\n",
    },
    "toolace": lambda i: {
        "system": f"You have these functions: {json.dumps([ADD['function']])}",
        "conversations": said("toolace", f"{i}: 2 and 3?", "[add(a=2, b=3)]"),
    },
}


def rows(name: str, count: int = 50) -> list[Row]:
    return [FORMATS[name](i) for i in range(count)]


def write(path: Path, found: Sequence[Row]) -> Path:
    """The rows as the file's name says."""
    suffix = Path(path.stem).suffix if path.suffix in (".gz", ".zst") else path.suffix
    lines = "".join(json.dumps(row) + "\n" for row in found).encode()
    if suffix == ".json":
        lines = json.dumps(list(found)).encode()
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0].keys())
            writer.writeheader()
            cells = ({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in found)
            writer.writerows(cells)
        return path
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(found)), path)
        return path
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(packed(lines))
    return path


def made(data: Path, *words: Any, **options: Any) -> tuple[LoadedRecipe, str]:
    """The recipe that is written, read as `run` reads it, and what was said."""
    told = "\n".join(draft(data, *words, **options))
    target = told.partition("written    ")[2].partition(": ")[0]
    return load(Path(target)), told
