"""ToolACE's rows: the functions stand as a JSON list in the system text, calls are written in brackets.

system      ... Here is a list of functions in JSON format that you can invoke:
            [{"name": "get_weather", "description": ..., "parameters": {"type": "dict", "properties": ...}}]. ...
assistant   [get_weather(city="Oslo", days=2), Market Trends API(country="us")]
tool        [{"name": "get_weather", "results": {...}}, ...]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.data.jsontext import STRICT, dumps, literal, refuse_halves
from toolkit.data.notes import RowError, shown
from toolkit.data.spoken_turns import Call, Said

_LIST = re.compile(r"\[\s*\{")
_PREAMBLE = re.compile(r"You are an expert in composing functions\b|Here is a list of functions in JSON format\b")
_AFTER = re.compile(
    r"[\s.]*Should you decide to return the function call.*?NO other text MUST be included\.?", re.DOTALL
)
_OPENERS = {"(": ")", "[": "]", "{": "}"}
_MOST_LISTS = 20  # places of a system text where a list is looked for
_CALLS = re.compile(r"\[\s*[^\s()\[\]{}=,\"'][^()\[\]{}=,\"'\n]*\(\s*(?:[\w .-]+=.*)?\)\s*\]", re.DOTALL)
_NAME = re.compile(r"[^()\[\]{}=,\"'\n]+(?=\()")


@dataclass(frozen=True, slots=True)
class Listed:
    """A system text with a JSON list of functions in it. `known`: in ToolACE's own words."""

    own: str
    tools: list[Any]
    known: bool

    @property
    def names(self) -> list[str]:
        return [str(tool["name"]) for tool in self.tools]


def read_system(text: str) -> Listed | None:
    """The functions that a system text lists as JSON, and what else it says; None where it lists none."""
    start = 0
    for _ in range(_MOST_LISTS):
        match = _LIST.search(text, start)
        if match is None:
            return None
        try:
            value, stop = STRICT.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            start = match.end()
            continue
        if all(_is_function(item) for item in value):
            break
        start = stop
    else:
        return None
    refuse_halves(value, "system: the functions")
    preamble = _PREAMBLE.search(text, 0, match.start())
    before = text[: preamble.start() if preamble else match.start()]
    after = _AFTER.sub("", text[stop:], count=1)
    own = "\n\n".join(part for part in (before.strip(), after.lstrip(" \n.").rstrip()) if part)
    return Listed(own, list(value), preamble is not None)


def _is_function(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    return isinstance(value.get("parameters"), dict) or isinstance(value.get("description"), str)


def is_call(text: str, names: Sequence[str]) -> bool:
    """Whether a text is bracket calls, the first of a function on offer."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return False
    inner = text[1:].lstrip()
    return any(inner.startswith(name) and inner[len(name) :].lstrip().startswith("(") for name in names)


def looks_like_call(text: str) -> bool:
    """Whether a text is written as bracket calls, of whatever functions."""
    return _CALLS.fullmatch(text.strip()) is not None


def read_bracket_calls(text: str, names: Sequence[str], what: str) -> tuple[Call, ...]:
    """The calls of `[name(key=value, ...), ...]`. Names are those on offer first, as they may hold anything.

    Raises `RowError` for what is no such text to its end.
    """
    text = text.strip()
    by_length = sorted(names, key=len, reverse=True)
    calls: list[Call] = []
    position = 1
    while True:
        position = _past_blank(text, position)
        name = next((one for one in by_length if text.startswith(one, position)), "")
        name = name if name and text[_past_blank(text, position + len(name)) :].startswith("(") else ""
        if not name:
            match = _NAME.match(text, position)
            if match is None:
                raise _broken(what, text, position)
            name = match[0].strip()
            position = match.end()
        else:
            position = _past_blank(text, position + len(name))
        stop = _closing(text, position, what)
        calls.append(Call(name, _arguments(text[position + 1 : stop], f"{what}: arguments of {shown(name)}")))
        position = _past_blank(text, stop + 1)
        if text[position : position + 1] == "]" and position + 1 == len(text):
            return tuple(calls)
        if text[position : position + 1] != ",":
            raise _broken(what, text, position)
        position += 1


def read_results(text: str, calls: int) -> list[Said]:
    """A tool's text as the results of `calls` calls: a JSON list with one item each, or the text as it is."""
    try:
        value = STRICT.decode(text)
    except (ValueError, RecursionError):
        return [Said("tool", text)]
    if not isinstance(value, list) or len(value) != calls or not all(isinstance(item, dict) for item in value):
        return [Said("tool", text)]
    found = []
    for item in value:
        name = item.get("name")
        named = isinstance(name, str) and set(item) == {"name", "results"}
        content = item["results"] if named else item
        written = content if isinstance(content, str) else dumps(content, "a tool's result")
        found.append(Said("tool", written, name=name if named else None))
    return found


def _past_blank(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _closing(text: str, start: int, what: str) -> int:
    """Where the bracket that opens at `start` closes; brackets in quotes don't count."""
    stack: list[str] = []
    quote = ""
    position = start
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character in _OPENERS:
            stack.append(_OPENERS[character])
        elif character in ")]}":
            if not stack or character != stack.pop():
                raise _broken(what, text, position)
            if not stack:
                return position
        position += 1
    raise _broken(what, text, start)


def _arguments(text: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in _split(text, what):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RowError(f"{what}: wanted key=value, got {shown(part.strip())}", cause="arguments without names")
        if key in found:
            raise RowError(f"{what}: the argument {shown(key)} stands twice", cause="an argument that stands twice")
        found[key] = literal(value.strip(), f"{what}: {shown(key)}")
    return found


def _split(text: str, what: str) -> list[str]:
    """The parts between commas that are in no brackets and quotes."""
    parts: list[str] = []
    start = position = 0
    while position < len(text):
        character = text[position]
        if character == ",":
            parts.append(text[start:position])
            start = position + 1
        elif character in _OPENERS:
            position = _closing(text, position, what)
        elif character in "\"'":
            position = _closing_quote(text, position, what)
        position += 1
    last = text[start:]
    return [*parts, last] if last.strip() else parts


def _closing_quote(text: str, start: int, what: str) -> int:
    position = start + 1
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == text[start]:
            return position
        position += 1
    raise _broken(what, text, start)


def _broken(what: str, text: str, position: int) -> RowError:
    return RowError(
        f"{what}: wanted calls as [name(key=value, ...)], got {shown(text[position : position + 40])} "
        f"at character {position + 1}",
        cause="bracket calls that are broken",
    )
