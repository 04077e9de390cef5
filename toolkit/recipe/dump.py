"""A recipe written out whole, as TOML that loads back to an equal recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.recipe.checks import BUILTIN_ONLY
from toolkit.recipe.schema import Recipe

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dump(recipe: Recipe) -> str:
    """Every key with its value; keys without a value (`revision`) stand as comments, because TOML has no null.

    Keys that only the built-in chats know are left out of other sources.
    """
    return "\n\n".join("\n".join(_table(name, section)) for name, section in recipe.model_dump().items()) + "\n"


def _table(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    arrays = {key: value for key, value in values.items() if isinstance(value, list) and value and _tables(value)}
    yield f"[{name}]"
    for key, value in values.items():
        if key not in arrays:
            yield f"# {key} is not set" if value is None else f"{_key(key)} = {value_text(value)}"
    for key, items in arrays.items():
        for item in items:
            yield ""
            yield f"[[{name}.{_key(key)}]]"
            builtin = str(item["source"]).startswith("builtin:")
            for inner, value in item.items():
                if builtin or inner not in BUILTIN_ONLY:
                    yield f"# {inner} is not set" if value is None else f"{_key(inner)} = {value_text(value)}"


def _tables(value: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def value_text(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, dict):
        given = {key: item for key, item in value.items() if item is not None}
        pairs = ", ".join(f"{_key(key)} = {value_text(item)}" for key, item in given.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return repr(value)


def _text(text: str) -> str:
    """A basic string: control characters escaped, everything else as it is."""
    return '"' + "".join(_ESCAPES.get(c) or (f"\\u{ord(c):04x}" if _control(c) else c) for c in text) + '"'


def _control(character: str) -> bool:
    return ord(character) < 0x20 or ord(character) == 0x7F
