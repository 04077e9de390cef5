"""The lines of `templates/signature.jinja` written by Python, for tables of many chats: in Jinja, where each operator
is paid for, they take more time than all else that is rendered.

The template stays what says how a tool is written: only where a template's macros are, node for node, those of our
file does `line` stand in for them, and only for tools of a plain shape. A test holds both to the same bytes.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, nodes

from toolkit.data.spending import budget

FILTER = "toolkit line"
_TOOL = "toolkit_tool"
_SMALL = "toolkit_small"
_DEEPEST = 6  # deeper schemas are left to the template
_LONGEST = 500  # characters of a description that is remembered
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CAPITALS = _LETTERS.upper()


class _OtherShapeError(Exception):
    """A tool that is left to the template."""


def line(tool: Any) -> str:
    """What the macro `toolkit_tool` writes for `tool`; empty for tools that are left to it."""
    if type(tool) is not dict:
        return ""
    try:
        function = _dict(tool.get("function", tool))
        name, about = _text(function, "name"), _text(function, "description")
        parameters = _dict(function.get("parameters"))
        known = f"{name.replace('_', ' ')} {about}"
        inside = _properties(parameters, known, 0) if "properties" in parameters else ""
    except _OtherShapeError:
        budget.weigh(tool)
        return ""
    written = f"{name}({inside}) - {_line(about)}" if about else f"{name}({inside})"
    budget.spend(len(written))
    return written


def put_in(tree: nodes.Template, environment: Environment) -> None:
    """Have `tree` ask `line` first, as the filter `FILTER`, if it has our macros and redefines none of them."""
    ours = _macros(environment)
    found = {key: node for node in tree.body if (key := _defined(node)) in ours}
    again = [node.name for node in tree.find_all(nodes.Macro) if node.name in ours]
    again += [node.name for node in tree.find_all(nodes.Name) if node.ctx == "store" and node.name in ours]
    if found != ours or len(again) != len(ours):
        return
    macro = found[_TOOL]
    assert isinstance(macro, nodes.Macro)
    asked = nodes.Filter(nodes.Name("tool", "load"), FILTER, [], [], None, None)
    written = nodes.Output([nodes.Name("toolkit_written", "load")])
    macro.body = [
        nodes.Assign(nodes.Name("toolkit_written", "store"), asked),
        nodes.If(nodes.Name("toolkit_written", "load"), [written], [], macro.body),
    ]


@lru_cache(maxsize=4)
def _macros(environment: Environment) -> dict[str, nodes.Node]:
    """The macros of our file, and the words that they know, by name."""
    text = resources.files("toolkit.data").joinpath("templates", "signature.jinja").read_text(encoding="utf-8")
    return {key: node for node in environment.parse(text).body if (key := _defined(node))}


def _defined(node: nodes.Node) -> str:
    if isinstance(node, nodes.Macro):
        return node.name
    return node.target.name if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) else ""


@lru_cache(maxsize=1)
def _small() -> frozenset[str]:
    words = _macros(Environment(trim_blocks=True, lstrip_blocks=True))[_SMALL]
    assert isinstance(words, nodes.Assign) and isinstance(words.node, nodes.List)
    return frozenset(words.node.as_const())


def _properties(schema: dict[str, Any], known: str, depth: int) -> str:
    required = schema.get("required", [])
    if type(required) is not list:
        raise _OtherShapeError
    written = []
    for key, given in _dict(schema["properties"]).items():
        if type(key) is not str:
            raise _OtherShapeError
        inner = _dict(given)
        kind = _schema(inner, known, depth)
        text = f"{key}{'' if key in required else '?'}: {kind}"
        if "default" in inner:
            text += f" = {_json(inner['default'])}"
        about = _text(inner, "description") if "description" in inner else ""
        if about and _adds(about, f"{known} {key.replace('_', ' ')} {kind}"):
            said = _line(about)
            text += f" ({said[:-1] if said[-1:] == '.' else said})"
        written.append(text)
    return ", ".join(written)


def _schema(schema: dict[str, Any], known: str, depth: int) -> str:
    if depth > _DEEPEST or "$ref" in schema or "anyOf" in schema or "oneOf" in schema:
        raise _OtherShapeError
    if "const" in schema:
        return _json(schema["const"])
    if "enum" in schema:
        if type(schema["enum"]) is not list:
            raise _OtherShapeError
        return " | ".join(map(_json, schema["enum"]))
    kind = schema.get("type")
    if type(kind) is not str:
        raise _OtherShapeError
    if kind == "array":
        inner = _schema(_dict(schema["items"]), known, depth + 1) if "items" in schema else "any"
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if "properties" in schema:
        return f"{{{_properties(schema, known, depth + 1)}}}" if schema["properties"] else "object"
    if "format" in schema:
        kind += f" {_text(schema, 'format')}"
    if "minimum" in schema or "maximum" in schema:
        low, high = (_json(schema[end]) if end in schema else "" for end in ("minimum", "maximum"))
        kind += f" {low}..{high}"
    return f"{kind} /{_text(schema, 'pattern')}/" if "pattern" in schema else kind


def _adds(about: str, known: str) -> bool:
    """Whether a description says more than `known`."""
    pairs = _words(about) if len(about) <= _LONGEST else _words.__wrapped__(about)
    budget.spend(len(about) + len(pairs) * len(known))
    return any(part not in known and other not in known for part, other in pairs)


@lru_cache(maxsize=4096)
def _words(about: str) -> tuple[tuple[str, str], ...]:
    """The words of a description that may say something, each with its other case."""
    small, found = _small(), {}
    for part in _line(about).replace(",", "").replace(".", "").replace(";", "").split(" "):
        first, other = part[:1], part
        if first in _CAPITALS:
            other = first.lower() + part[1:]
        elif first in _LETTERS:
            other = first.upper() + part[1:]
        if part and part not in small and other not in small:
            found[part] = other
    return tuple(found.items())


def _line(text: str) -> str:
    for white in ("\r", "\n", "\t", "    ", "  ", "  "):
        text = text.replace(white, " ")
    return text


def _dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise _OtherShapeError
    return value


def _text(holder: dict[str, Any], key: str) -> str:
    value = holder.get(key)
    if type(value) is not str:
        raise _OtherShapeError
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
