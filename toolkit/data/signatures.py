"""Tool schemas in few tokens: one line a tool, written like a function's signature.

    get_weather(city: string, units?: "metric" | "imperial") - Current weather of a city.

`?` marks an argument that may be left out. A parameter's own description follows its type in parentheses, but only
where it says something that the names do not say already: small models pay for every token of a system turn.
"""

from __future__ import annotations

import json
import re
from typing import Any

_WORD = re.compile(r"[a-z0-9]+")
_EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of to for in on at by is be and or this that it its as with which from value name given optional "
        "required string number integer boolean array list object parameter argument field mentioned user",
    )
)
_MAX_DEPTH = 6  # of nested objects and references; deeper is written as `object`


def signature(tool: dict[str, Any]) -> str:
    """One OpenAI function schema as one line."""
    function = tool["function"]
    name, description = function["name"], " ".join(str(function.get("description") or "").split())
    parameters = function.get("parameters") or {}
    known = _words(name) | _words(description)
    arguments = _properties(parameters, parameters, known, 0)
    line = f"{name}({', '.join(arguments)})"
    return f"{line} - {description}" if description else line


def _properties(schema: dict[str, Any], root: dict[str, Any], known: set[str], depth: int) -> list[str]:
    required = set(schema.get("required") or ())
    properties = schema.get("properties") or {}
    return [_parameter(key, value, key in required, root, known, depth) for key, value in properties.items()]


def _parameter(key: str, schema: Any, required: bool, root: dict[str, Any], known: set[str], depth: int) -> str:
    schema = schema if isinstance(schema, dict) else {}
    text = f"{key}{'' if required else '?'}: {_type(schema, root, known, depth)}"
    if "default" in schema:
        text += f" = {_json(schema['default'])}"
    description = " ".join(str(schema.get("description") or "").split())
    if description and _words(description) - known - _words(key) - _words(text):
        text += f" ({description.rstrip('.')})"
    return text


def _type(schema: dict[str, Any], root: dict[str, Any], known: set[str], depth: int) -> str:
    if depth > _MAX_DEPTH:
        return "object"
    if reference := schema.get("$ref"):
        return _type(_follow(str(reference), root), root, known, depth + 1)
    if "const" in schema:
        return _json(schema["const"])
    if isinstance(schema.get("enum"), list):
        return " | ".join(map(_json, schema["enum"]))
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return _union(_type(part, root, known, depth + 1) for part in schema[union] if isinstance(part, dict))
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(_type({**schema, "type": one}, root, known, depth + 1) for one in kind)
    if kind == "array":
        items = schema.get("items")
        inner = _type(items, root, known, depth + 1) if isinstance(items, dict) else "any"
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if kind == "object" or "properties" in schema:
        inside = _properties(schema, root, known, depth + 1)
        return "{" + ", ".join(inside) + "}" if inside else "object"
    return str(kind or "any") + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    """` date-time`, ` 1..10` or ` /^a+$/`: what a value of a plain type must keep to."""
    parts = []
    if "format" in schema:
        parts.append(str(schema["format"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        parts.append(f"{'' if low is None else low}..{'' if high is None else high}")
    if "pattern" in schema:
        parts.append(f"/{schema['pattern']}/")
    return "".join(f" {part}" for part in parts)


def _union(parts: Any) -> str:
    return " | ".join(dict.fromkeys(parts)) or "any"


def _follow(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    """The schema that a local reference such as `#/$defs/City` names, or an empty one."""
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        node = node.get(step) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _words(text: str) -> set[str]:
    """Lower-case words without endings, snake_case and camelCase taken apart."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower()
    return {word.removesuffix("s") for word in _WORD.findall(parted)} - _EMPTY_WORDS


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
