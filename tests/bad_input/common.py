"""A recipe that trains at once, and what its errors look like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"^--set [\w.]+=.*?: ")
Call = Callable[..., tuple[int, str]]
Row = dict[str, Any]

BASE = """
[model]
name = "./model"
dtype = "float32"

[[data.sources]]
source = "chats.jsonl"

[data]
call_format = "json"

[train]
engine = "peft"
bf16 = false
max_steps = 1
max_length = 512
gradient_checkpointing = false
torch_threads = 1

[eval]
holdout = 4
early_stopping_patience = 0
"""


def errors(text: str) -> list[str]:
    """The problems on stderr; fails when there is anything else."""
    lines = text.splitlines()
    assert lines and all(line.startswith("error: ") for line in lines), text
    return [line.removeprefix("error: ") for line in lines]


def unplaced(text: str) -> list[str]:
    """The problems without the `--set KEY=VALUE: ` that they are about."""
    return [_PLACE.sub("", line) for line in errors(text)]


def rows(place: Path) -> list[Row]:
    return [json.loads(line) for line in (place / "chats.jsonl").read_text().splitlines()]


def write_rows(place: Path, found: list[Row]) -> None:
    (place / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
