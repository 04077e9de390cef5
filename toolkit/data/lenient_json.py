"""JSON as models write it: strict where it can be, else mended where nothing has to be guessed, and said so."""

from __future__ import annotations

import json
import re
from typing import Any

LOOKS_LIKE_CALL = re.compile(
    r"""\[?\s*\{\s*["'](?:tool|tool_name|function|name|tool_calls|jsonrpc|method|arguments|parameters)["']\s*:"""
)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LAX = json.JSONDecoder(strict=False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is Python's, not JSON's")


STRICT = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(text: str, start: int) -> tuple[Any, int, str] | None:
    """The object or array at `start`, where it ends, and what had to be mended; None when there is none."""
    for decoder, mended in ((STRICT, ""), (_LAX, "not strict JSON: a raw line break in a string, or NaN")):
        try:
            value, stop = decoder.raw_decode(text, start)
            return value, stop, mended
        except (ValueError, RecursionError):
            continue
    if not LOOKS_LIKE_CALL.match(text, start):
        return None
    stop = end_of_value(text, start)
    try:
        value = _LAX.decode(_without_trailing_commas(text[start:stop]))
    except (ValueError, RecursionError):
        return None
    return value, stop, "not strict JSON: a comma before a closing bracket"


def end_of_value(text: str, start: int) -> int:
    """Where the bracket at `start` closes, or the next closing mark, or the end of the text."""
    depth, position = 0, start
    while position < len(text):
        if text[position] == '"':
            string = _STRING.match(text, position)
            if string is None:
                return len(text)
            position = string.end()
            continue
        if text.startswith("</tool_call>", position):
            return position
        depth += (text[position] in "{[") - (text[position] in "}]")
        position += 1
        if depth == 0:
            return position
    return len(text)


def _without_trailing_commas(text: str) -> str:
    parts: list[str] = []
    position = 0
    for string in _STRING.finditer(text):
        parts += [_TRAILING_COMMA.sub(r"\1", text[position : string.start()]), string[0]]
        position = string.end()
    return "".join([*parts, _TRAILING_COMMA.sub(r"\1", text[position:])])


def why(text: str) -> str:
    """What a strict parser says is wrong with `text`."""
    try:
        STRICT.decode(text)
    except RecursionError:
        return "nested too deeply"
    except json.JSONDecodeError as error:
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    except ValueError as error:
        return str(error)
    return "text after the JSON value" if text else "nothing there"
