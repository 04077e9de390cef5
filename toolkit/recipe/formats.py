"""Recipes that were written in another format: what it is, and how the same is written in TOML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.recipe.names import BY_NAME, SECTIONS
from toolkit.words import typed

_PAIR = re.compile(r"^(\s*)(?:- )?[\"']?([\w.-]+)[\"']?:(?:\s+(.*?))?\s*$")
_SHOWN = 60  # characters of a line
_DATA = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")  # no recipe of any tool has such a name
_PACKED = (".gz", ".zst")
_ROW_KEYS = {"messages", "conversations", "conversation", "instruction", "prompt", "query", "chat"}


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """The first line that shows it, and the message."""

    line: int
    message: str


def is_data(path: Path) -> bool:
    """Whether a file's name says that it holds rows to train on."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return bool(suffixes) and (suffixes[-1] in _DATA or suffixes[-1] in _PACKED)


def data_message(path: Path) -> str:
    """What to say of data in a recipe's place."""
    return f"this is data, and a recipe is TOML; {init_hint(path)}"


def init_hint(path: Path) -> str:
    """The command that makes a recipe out of data."""
    return f"write a recipe for it: {typed('init', path)}"


def other_format(path: Path, text: str) -> OtherFormat | None:
    """What a file that is no TOML is instead, by what stands in it; None where nothing tells."""
    if text.lstrip()[:1] in ("{", "[") and (found := _json(path, text)) is not None:
        return found
    lines = [line.split(" #")[0].rstrip() for line in text.splitlines()]
    pairs = [(number, match) for number, line in enumerate(lines, 1) if (match := _PAIR.match(line))]
    written = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "---", "- "))]
    named = path.suffix.lower() in (".yaml", ".yml")
    if not pairs or (not named and 2 * len(pairs) <= len(written)):
        return None
    number, first = pairs[0]
    told = f"this is YAML, and a recipe is TOML: {_shown(lines[number - 1].strip())} is written {_toml(first)}"
    inner = next((match for _, match in pairs[1:] if match[3]), None)
    if not first[3] and inner is not None:
        told += f", and {_shown(inner[0].strip())} below it {_toml(inner)}"
    return OtherFormat(number, told)


def _json(path: Path, text: str) -> OtherFormat | None:
    line = text[: len(text) - len(text.lstrip())].count("\n") + 1
    try:
        value = jsons.loads(text)
    except ValueError:
        if not _is_row(text.lstrip().split("\n", 1)[0]):
            return None
        return OtherFormat(line, data_message(path))
    rows = value if isinstance(value, list) else [value]
    if rows and isinstance(rows[0], dict) and not _ROW_KEYS.isdisjoint(rows[0]):
        return OtherFormat(line, data_message(path))
    told = "this is JSON, and a recipe is TOML"
    if not isinstance(value, dict) or not value:
        return OtherFormat(line, told)
    key, inner = next(iter(value.items()))
    if isinstance(inner, dict):
        pairs = [f"{name} = {_value(item)}" for name, item in inner.items() if not isinstance(item, (dict, list))]
        below = f", and below it {pairs[0]}" if pairs else ""
        return OtherFormat(line, f'{told}: "{key}": {{...}} is written [{key}]{below}')
    return OtherFormat(line, f"{told}: {_shown(json.dumps({key: inner}))} is written {key} = {_value(inner)}")


def _is_row(line: str) -> bool:
    """Whether a line is an object of its own, as those of JSON Lines are."""
    try:
        return isinstance(jsons.loads(line), dict)
    except ValueError:
        return False


def toml_line(text: str) -> str:
    """`seed = 3` for a line `seed: 3`; empty where the line is no such pair."""
    match = _PAIR.match(text)
    return _toml(match) if match is not None and match[3] else ""


def _toml(match: re.Match[str]) -> str:
    key, value = match[2], match[3]
    if not value:
        return f"[{SECTIONS.get(key, key)}]"
    other = BY_NAME.get(key)
    if other is None or not other.ours or other.value:
        return _pair(key, value)
    section, _, ours = other.ours.rpartition(".")
    return f"{_pair(ours, value)} below {'[[' if '.' in section else '['}{section}{']]' if '.' in section else ']'}"


def _pair(key: str, value: str) -> str:
    if value.startswith(("'", '"', "[", "{")) or value in ("true", "false") or _number(value):
        return f"{key} = {value}"
    if value.lower() in ("true", "false", "yes", "no", "on", "off"):
        return f"{key} = {'true' if value.lower() in ('true', 'yes', 'on') else 'false'}"
    if value.lower() in ("null", "none", "~"):
        return "nothing at all: leave the key out"
    return f"{key} = {json.dumps(value)}"


def _value(value: Any) -> str:
    return json.dumps(value) if value is not None else "nothing at all: leave the key out"


def _number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+(\.\d+)?|\.\d+)([eE][-+]?\d+)?", text) is not None and not text.startswith(".")


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
