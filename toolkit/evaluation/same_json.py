"""When two JSON values are the same, to the letter or but for case and spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def same_json(a: Any, b: Any) -> bool:
    """Equality of JSON values: numbers by value, but true is not 1; the order of keys does not matter."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_json(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return type(a) is type(b) and bool(a == b)


def same_but_case(a: Any, b: Any) -> bool:
    """`same_json` of what is left when the strings in both values, at any depth, lose their case, the spaces at their
    ends, and all but one of several in a row. The keys of objects are names, and stay as they are."""
    return same_json(_folded(a), _folded(b))


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, Mapping):
        return {key: _folded(inner) for key, inner in value.items()}
    return [_folded(inner) for inner in value] if isinstance(value, list) else value
