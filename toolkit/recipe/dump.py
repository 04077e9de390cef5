"""A recipe written out whole, as TOML that loads back to an equal recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from toolkit.chats import BUILTIN_PREFIX
from toolkit.recipe.checks import BUILTIN_ONLY
from toolkit.recipe.schema import Recipe


def dump(recipe: Recipe) -> str:
    """Every key with its value; keys without a value (`revision`) stand as comments, because TOML has no null.

    tomli-w writes keys and values; of comments it knows nothing. Keys that only the built-in chats know are left out of
    other sources.
    """
    return "\n\n".join("\n".join(_table(name, section)) for name, section in recipe.model_dump().items()) + "\n"


def _table(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    arrays = {key: value for key, value in values.items() if isinstance(value, list) and value and _tables(value)}
    yield f"[{name}]"
    for key, value in values.items():
        if key not in arrays:
            yield _pair(key, value)
    for key, items in arrays.items():
        for item in items:
            yield ""
            yield f"[[{name}.{key}]]"
            builtin = str(item["source"]).startswith(BUILTIN_PREFIX)
            for inner, value in item.items():
                if builtin or inner not in BUILTIN_ONLY:
                    yield _pair(inner, value)


def _tables(value: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in value)


def _pair(key: str, value: Any) -> str:
    return f"# {key} is not set" if value is None else _written({key: 0}).removesuffix("0") + value_text(value)


def value_text(value: Any) -> str:
    """A value as TOML writes it, on one line: tomli-w gives each value of a list one of its own, and a table a head."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(_pair(key, item) for key, item in value.items() if item is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    return _written({"x": value}).removeprefix("x = ")


def _written(values: dict[str, Any]) -> str:
    return tomli_w.dumps(values).rstrip("\n")
