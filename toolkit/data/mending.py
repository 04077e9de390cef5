"""What other tools leave in schemas and arguments, taken out: Arrow's nulls, and other languages' names of types.

A column of structs in Arrow has every field of every row, so a file that went through it holds null wherever a field
was absent, and afterwards nobody can tell the two apart. The rule, row by row:

- In a schema a keyword that can't be null (`type`, `enum`, `items`, a property) is absent where it is null. That also
  shows that the row came through Arrow ("padded").
- Where a null can be meant (`default`, `const`) it stays, unless the row is padded and the schema takes no null there.
- Nulls inside the lists of `enum` and `examples`, and inside values, stay.
- A null argument stays, unless its tool knows no argument of that name, or the row is padded and the tool's schema
  neither takes null there nor requires the argument.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from toolkit.data.schema_rules import LISTED, NAMED, ONE, TYPES

_VALUES = frozenset(("default", "const", "example"))
_OTHER_TYPES = {
    "any": None,
    "bool": "boolean",
    "dict": "object",
    "dictionary": "object",
    "double": "number",
    "float": "number",
    "int": "integer",
    "list": "array",
    "long": "integer",
    "map": "object",
    "none": "null",
    "nonetype": "null",
    "set": "array",
    "str": "string",
    "tuple": "array",
    **{name: name for name in TYPES},  # in capitals, as Gemini's
}


@dataclass(slots=True)
class Mended:
    """A schema without nulls that it can't have: how many went, and which types were read as which."""

    schema: dict[str, Any]
    nulls: int = 0
    types: dict[str, str] = field(default_factory=dict)
    types_times: Counter[str] = field(default_factory=Counter)


def mend(schema: dict[str, Any], *, padded: bool) -> Mended:
    """`schema` by the rule above. It must be of bounded depth."""
    found = Mended({})
    found.schema = _mended(schema, found, padded)
    return found


def _mended(schema: Any, found: Mended, padded: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if value is None:
            if key in _VALUES and (not padded or takes_null(schema)):
                result[key] = None
            else:
                found.nulls += 1
        elif key == "type":
            kind = _type(value, found)
            if kind is not None:
                result[key] = kind
        elif key in NAMED and isinstance(value, dict):
            found.nulls += sum(inner is None for inner in value.values())
            result[key] = {name: _mended(inner, found, padded) for name, inner in value.items() if inner is not None}
        elif key in ONE or key in LISTED:
            many = isinstance(value, list)
            result[key] = [_mended(one, found, padded) for one in value] if many else _mended(value, found, padded)
        else:
            result[key] = value
    return result


def _type(value: Any, found: Mended) -> Any:
    if isinstance(value, list):
        kinds = [_type(one, found) for one in value]
        return None if any(kind is None for kind in kinds) else _each_once(kinds)
    if not isinstance(value, str) or value in TYPES or value.lower() not in _OTHER_TYPES:
        return value
    kind = _OTHER_TYPES[value.lower()]
    found.types[value] = kind or "anything"
    found.types_times[value] += 1
    return kind


def _each_once(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def takes_null(schema: Any) -> bool:
    """Whether a schema says in so many words that null is one of its values."""
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind) or schema.get("nullable") is True:
        return True
    listed = schema.get("enum")
    if isinstance(listed, list) and None in listed:
        return True
    parts = [part for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list) for part in schema[key]]
    return any(isinstance(part, dict) and part.get("type") == "null" for part in parts)


def mend_arguments(arguments: dict[str, Any], schema: dict[str, Any], *, padded: bool) -> tuple[dict[str, Any], int]:
    """A call's arguments by the rule above, and how many nulls went. `schema` is that of the tool's parameters."""
    if not _has_null(arguments):
        return arguments, 0
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    closed = bool(known) and not schema.get("additionalProperties") and not schema.get("patternProperties")
    foreign = {name for name, value in arguments.items() if value is None and closed and name not in known}
    if not (padded or foreign):
        return arguments, 0
    count = [0]
    return _without(arguments, schema, count), count[0]


@dataclass(frozen=True, slots=True)
class Stripped:
    """A value without nulls, and how many went."""

    value: Any
    count: int


def strip_nulls(value: Any) -> Stripped:
    """A row of an Arrow table without keys whose value is null, at every depth: each says that a field is absent."""
    count = [0]
    return Stripped(_stripped(value, count), count[0])


def _stripped(value: Any, count: list[int]) -> Any:
    if isinstance(value, dict):
        kept = {key: _stripped(inner, count) for key, inner in value.items() if inner is not None}
        count[0] += len(value) - len(kept)
        return kept
    if isinstance(value, list):
        return [_stripped(inner, count) for inner in value]
    return value


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(inner is None or _has_null(inner) for inner in value.values())
    return isinstance(value, list) and any(_has_null(inner) for inner in value)


def _without(value: Any, schema: Any, count: list[int]) -> Any:
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        items = schema.get("items")
        return [_without(inner, items, count) for inner in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        if inner is None and name not in required and not takes_null(known.get(name)):
            count[0] += 1
        else:
            kept[name] = _without(inner, known.get(name), count)
    return kept
