"""JSON files of a run folder: written whole, with a checksum; read so that what is damaged is named, not met later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.errors import Problem, RunError
from toolkit.files import write_text
from toolkit.manifest import CHECKSUM, is_damaged, sealed

NUMBERS = (
    "epoch",
    "loss",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "memory",
    "seconds",
    "eval_loss",
    "eval_calls",
    "real_tokens",
    "skipped_updates",
)
BLOCK = 1024  # lines of a log that are read at once
FLOAT_OR_NONE = {float, type(None)}


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; an object gets a checksum of its own (`toolkit.manifest`)."""
    value = sealed(value) if isinstance(value, dict) else value
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    write_text(path, text + "\n", durable=True)


def read_object(path: Path, advice: str = "") -> dict[str, Any]:
    """A JSON object without its checksum, or an empty one where there is no such file.

    Raises `RunError` with the file's name, what is wrong and `advice` for anything else, and for an object that is not
    what was written.
    """
    value = _read(path, advice)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong_file(path, f"wanted a JSON object, found {type(value).__name__}", advice)
    if is_damaged(value):
        raise _wrong_file(path, "changed since it was written (its checksum is of something else)", advice)
    value.pop(CHECKSUM, None)
    return value


def is_sealed(path: Path) -> bool:
    """Whether a file holds an object with a checksum, which those written before there were any do not."""
    value = _read(path, "")
    return isinstance(value, dict) and CHECKSUM in value


def read_list(path: Path, advice: str = "") -> list[dict[str, Any]]:
    """A list of JSON objects, or an empty one where there is no such file. Raises `RunError` as `read_object`."""
    value = _read(path, advice)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong_file(path, "wanted a list of JSON objects", advice)
    return value


def _read(path: Path, advice: str) -> Any:
    try:
        return jsons.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _wrong_file(path, f"not JSON: {error}", advice) from None
    except OSError as error:
        raise _wrong_file(path, f"can't be read: {(error.strerror or str(error)).lower()}", advice) from None


def _wrong_file(path: Path, wrong: str, advice: str) -> RunError:
    return RunError(f"{path}: {wrong}" + (f"; {advice}" if advice else ""))


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Add dataclasses to a JSON-lines file, which need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def read_jsonl(path: Path, bad: list[Problem] | None = None) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. A line that is none is left out, and added to `bad` with its place; not so a
    last line that a crash cut short, and blank ones."""
    for number, whole, line in _lines(path):
        try:
            row = jsons.loads(line.decode("utf-8"))
            if not isinstance(row, dict):
                raise ValueError(f"wanted an object, found {type(row).__name__}")
        except ValueError as error:
            if bad is not None and whole:
                bad.append(Problem(f"{path}:{number}", str(error)))
            continue
        yield row


def read_rows(path: Path, bad: list[Problem] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a metrics.jsonl; what is none is left out, and added to `bad` as `read_jsonl` does.

    Blocks of lines are read at once, as there may be 100,000; one line by line where anything in it is wrong.
    """
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for first in range(0, len(lines), BLOCK):
        block = lines[first : first + BLOCK]
        found = _right_rows(block)
        if found is not None:
            yield from found
            continue
        for number, line in enumerate(block, first + 1):
            if not line.strip():
                continue
            try:
                row = jsons.loads(line.decode("utf-8"))
                wrong = _wrong_row(row)
            except ValueError as error:
                wrong = str(error)
            if not wrong:
                yield row
            elif bad is not None and number < len(lines):
                bad.append(Problem(f"{path}:{number}", f"not a row of a training log: {wrong}"))


def _lines(path: Path) -> Iterator[tuple[int, bool, bytes]]:
    """(number, whether a line break ends it, text) of all lines that are not blank."""
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, number < len(lines), line


def _right_rows(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """The rows of these lines; None where one of them may be none. Each line is a list of its own in the JSON that is
    read, so that what stands in a line stays in it."""
    try:
        found = json.loads((b"[[" + b"],[".join(lines) + b"]]").decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if len(found) != len(lines) or any(type(one) is not list or len(one) > 1 for one in found):
        return None
    rows = [row for one in found for row in one]
    if any(type(row) is not dict for row in rows):
        return None
    said: set[str] = set().union(*rows)
    for name in said.intersection(NUMBERS):
        values = [row.get(name) for row in rows]
        kinds = set(map(type, values)) - FLOAT_OR_NONE
        if kinds and (kinds != {int} or not _in_range([value for value in values if type(value) is int])):
            return None
    updates = [row.get("update") for row in rows]
    if updates and (set(map(type, updates)) != {int} or min(updates) < 0 or not _in_range(updates)):
        return None
    if not said.isdisjoint(("eval_chats", "eval_groups")) and any(map(_wrong_row, rows)):
        return None
    return rows


def _in_range(whole: list[int]) -> bool:
    return min(whole) > -(2**63) and max(whole) < 2**63


def _wrong_row(row: Any) -> str:
    """What is wrong with a row, or an empty string."""
    if not isinstance(row, dict):
        return f"wanted an object, found {type(row).__name__}"
    update = row.get("update")
    if not isinstance(update, int) or isinstance(update, bool) or not 0 <= update < 2**63:
        return f"update: wanted a whole number of at least 0, found {update!r}"
    for name in NUMBERS:
        value = row.get(name)
        if value is not None and not _is_number(value):
            return f"{name}: wanted a number, found {value!r}"
    chats = row.get("eval_chats")
    if chats is not None and not (isinstance(chats, int) and not isinstance(chats, bool) and 0 <= chats < 2**63):
        return f"eval_chats: wanted a whole number of at least 0, found {chats!r}"
    groups = row.get("eval_groups")
    if groups is not None and not (isinstance(groups, list) and all(map(_is_number, groups))):
        return "eval_groups: wanted a list of numbers"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)
