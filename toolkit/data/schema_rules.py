"""Whether a tool's parameters are a JSON schema (draft 2020-12) that can be used: of the right shape, closed, bounded.

Schemas come with the data, so nothing in one is believed. Looked at without recursion and without running it:
every keyword's shape, every pattern, every reference (which must lead to a place in the schema itself and may not lead
round in a circle), how deep and how large it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from toolkit.errors import did_you_mean
from toolkit.patterns import PatternError, compiled
from toolkit.terminal import one_line

DEEPEST = 100  # levels of JSON; two to each level of properties
MOST_VALUES = 20_000
_MOST_BITS = 13_000
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

# Where a schema holds schemas: one, a list of them, or named ones.
ONE = frozenset(
    [
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
LISTED = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
NAMED = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
REFERENCES = ("$ref", "$dynamicRef")
ANCHORS = ("$anchor", "$dynamicAnchor")
# Those that hold the same value against another schema: a circle of them never ends.
_IN_PLACE = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"))

Found = Callable[[Any], str | None]


class _Invalid(Exception):
    """Why a schema is none."""


def check_schema(schema: Any) -> str | None:
    """Why a schema can't be used, in one line that begins with the place in it, or None for one that can.

    The same verdict as draft 2020-12's own schema for schemas, and beyond it: references must resolve within the
    schema, patterns must compile, numbers be finite, and size and depth are bounded.
    """
    try:
        _bounded(schema)
        _resolved(schema)
    except _Invalid as error:
        return one_line(error)
    return None


def subschemas(schema: Any) -> list[dict[str, Any]]:
    """Every object in a checked schema that is used as a schema, those that only a reference leads to too."""
    return list(_resolved(schema).values())


def _bounded(schema: Any) -> None:
    stack, values = [(schema, 1)], 0
    while stack:
        value, depth = stack.pop()
        values += 1
        if depth > DEEPEST:
            raise _Invalid(f"nested more than {DEEPEST} levels deep")
        if values > MOST_VALUES:
            raise _Invalid(f"holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            if any(not isinstance(key, str) for key in value):
                raise _Invalid("has a key that is no text")
            stack += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            stack += [(inner, depth + 1) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise _Invalid(f"holds {value}, which is no number of JSON")
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _Invalid("holds a number of more than 4,000 digits")
        elif value is not None and not isinstance(value, (str, int, float)):
            raise _Invalid(f"holds a {type(value).__name__}, which is not JSON")


def _resolved(schema: Any) -> dict[int, dict[str, Any]]:
    """All schemas by `id`, after their keywords, references and circles were looked at."""
    found: dict[int, dict[str, Any]] = {}
    anchors: dict[str, Any] = {}
    references: list[tuple[str, dict[str, Any], str]] = []
    edges: dict[int, list[int]] = {}
    todo: list[tuple[str, Any]] = [("", schema)]
    while todo or references:
        if not todo:  # anchors are known only now
            place, holder, ref = references.pop()
            target = _target(schema, ref, anchors, place)
            edges[id(holder)].append(id(target))
            todo.append((ref, target))
            continue
        place, value = todo.pop()
        if isinstance(value, bool) or id(value) in found:
            continue
        if not isinstance(value, dict):
            raise _Invalid(f"{place or 'the schema'}: wanted a schema, got {_shown(value)}")
        found[id(value)] = value
        edges[id(value)] = []
        for keyword, inner in value.items():
            here = f"{place}.{keyword}" if place else keyword
            if (wrong := _SHAPES.get(keyword)) and (reason := wrong(inner)):
                raise _Invalid(f"{here}: {reason}")
            if keyword in REFERENCES:
                references.append((here, value, inner))
            elif keyword in ANCHORS:
                anchors[inner] = value
            for name, inside in _held(keyword, inner):
                todo.append((f"{here}.{name}" if name else here, inside))
                if keyword in _IN_PLACE:
                    edges[id(value)].append(id(inside))
    _refuse_circle(edges, found)
    return found


def _held(keyword: str, value: Any) -> Iterator[tuple[str, Any]]:
    if keyword in ONE:
        yield "", value
    elif keyword in LISTED:
        yield from ((str(index), inner) for index, inner in enumerate(value))
    elif keyword in NAMED:
        yield from value.items()
    elif keyword == "dependencies":
        yield from ((name, inner) for name, inner in value.items() if not isinstance(inner, list))


def _target(schema: Any, ref: str, anchors: dict[str, Any], place: str) -> Any:
    if not ref.startswith("#"):
        raise _Invalid(f"{place}: {_shown(ref)} leads out of the schema; nothing is fetched, wanted #/$defs/NAME")
    fragment = unquote(ref[1:])
    if fragment and not fragment.startswith("/"):
        if fragment not in anchors:
            raise _Invalid(f"{place}: no $anchor {_shown(fragment)} in the schema{did_you_mean(fragment, anchors)}")
        return anchors[fragment]
    value = schema
    for part in fragment.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 7 and int(step) < len(value):
            value = value[int(step)]
        else:
            near = did_you_mean(step, value) if isinstance(value, dict) else ""
            raise _Invalid(f"{place}: {_shown(ref)} leads nowhere in the schema{near}")
    return value


def _refuse_circle(edges: dict[int, list[int]], found: dict[int, dict[str, Any]]) -> None:
    done: set[int] = set()
    for start in edges:
        path: list[tuple[int, Iterator[int]]] = [(start, iter(edges[start]))] if start not in done else []
        on_path = {start}
        while path:
            node, rest = path[-1]
            step = next(rest, None)
            if step is None:
                done.add(node)
                on_path.discard(node)
                path.pop()
            elif step in on_path:
                ref = next((found[node][key] for key in REFERENCES if key in found[node]), "")
                raise _Invalid(f"refers to itself without end{f' ($ref {_shown(ref)})' if ref else ''}")
            elif step in edges and step not in done:
                on_path.add(step)
                path.append((step, iter(edges[step])))


def _shown(value: Any) -> str:
    kinds: dict[type, str] = {dict: "an object", list: "a list"}
    text = value if isinstance(value, str) else kinds.get(type(value)) or repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def _wanted(what: str, right: Callable[[Any], bool]) -> Found:
    return lambda value: None if right(value) else f"wanted {what}, got {_shown(value)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len(set(value)) == len(value)


def _type(value: Any) -> str | None:
    kinds = value if isinstance(value, list) else [value]
    for kind in kinds:
        if not isinstance(kind, str) or kind not in TYPES:
            near = did_you_mean(kind, TYPES) if isinstance(kind, str) else ""
            return f"{_shown(kind)} is no type of JSON; wanted {', '.join(TYPES)}{near}"
    return None if kinds and len(set(kinds)) == len(kinds) else f"wanted types that differ, got {_shown(value)}"


def _pattern(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"wanted a regular expression, got {_shown(value)}"
    try:
        compiled(value)
    except PatternError as error:
        return str(error)
    return None


def _patterns(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"wanted an object of schemas, got {_shown(value)}"
    return next((reason for key in value if (reason := _pattern(key))), None)


_flag = _wanted("true or false", lambda value: isinstance(value, bool))
_text = _wanted("text", lambda value: isinstance(value, str))
_list = _wanted("a list", lambda value: isinstance(value, list))
_count = _wanted("a whole number, 0 or more", _is_count)
_number = _wanted("a number", _is_number)
_texts = _wanted("a list of texts that differ", _is_texts)
_schemas = _wanted("a list of schemas", lambda value: isinstance(value, list) and bool(value))
_named = _wanted("an object of schemas", lambda value: isinstance(value, dict))

_SHAPES: dict[str, Found] = {
    **dict.fromkeys(LISTED, _schemas),
    **dict.fromkeys(NAMED, _named),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _flag),
    **dict.fromkeys((*REFERENCES, *ANCHORS, "$id", "$schema", "$comment", "title", "description", "format"), _text),
    **dict.fromkeys(("contentEncoding", "contentMediaType"), _text),
    **dict.fromkeys(("enum", "examples"), _list),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"), _count),
    **dict.fromkeys(("minProperties", "maxProperties"), _count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _number),
    "multipleOf": _wanted("a number above 0", lambda value: _is_number(value) and value > 0),
    "type": _type,
    "required": _texts,
    "dependentRequired": _wanted(
        "an object of lists of texts", lambda value: isinstance(value, dict) and all(map(_is_texts, value.values()))
    ),
    "dependencies": _wanted(
        "an object of schemas or lists of texts",
        lambda value: isinstance(value, dict) and all(_is_texts(v) for v in value.values() if isinstance(v, list)),
    ),
    "pattern": _pattern,
    "patternProperties": _patterns,
}
