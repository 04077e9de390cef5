"""Tool schemas in the one shape that the toolkit keeps: OpenAI function schemas.

Exactly `name`, `description` and `parameters`, in this order, because servers (llama.cpp, vLLM) rebuild a tool from
these three before they hand it to the chat template: a tool without a description gets the empty one that llama.cpp
inserts, and other keys go. So the text that the model is trained on is the text it meets when it serves. Inside
`parameters` everything stays as it came, the order of keys too.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PYTHON_TYPES = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "complex": "string",
    "bool": "boolean",
    "boolean": "boolean",
    "dict": "object",
    "object": "object",
    "list": "array",
    "array": "array",
    "set": "array",
    "tuple": "array",
}
_CONTAINER = re.compile(r"^(\w+)\s*\[(.*)\]$", re.DOTALL)
_NO_DEFAULT = object()


class RowError(ValueError):
    """A row is not what its format asks for."""


def loads(text: str, what: str) -> Any:
    """JSON, or a `RowError` that says what is not JSON and where it breaks."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError(f"{what}: not JSON: {error}") from error


def read_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a row: a list, or JSON text of one, of function schemas with or without the OpenAI wrapper."""
    if isinstance(value, str):
        value = loads(value, "tools") if value.strip() else []
    if value is None:
        return ()
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"tools: wanted a list of function schemas, got {_kind(value)}")
    return tuple(read_tool(tool, f"tools[{index}]") for index, tool in enumerate(value))


def read_tool(value: Any, what: str) -> dict[str, Any]:
    """One tool in the toolkit's shape (see the module)."""
    if isinstance(value, str):
        value = loads(value, what)
    if not isinstance(value, dict):
        raise RowError(f"{what}: wanted a function schema, got {_kind(value)}")
    function = value.get("function", value)
    if isinstance(function, str):
        function = loads(function, what)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError(f"{what}: a tool needs a name")
    name = function["name"]
    parameters = function.get("parameters", function.get("input_schema"))
    if isinstance(parameters, str):
        parameters = loads(parameters, f"{what}: parameters of {name}")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise RowError(f"{what}: parameters of {name}: wanted a JSON schema, got {_kind(parameters)}")
    return {
        "type": "function",
        "function": {"name": name, "description": function.get("description") or "", "parameters": parameters},
    }


def read_xlam_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Tools as xlam writes them: `parameters` is {name: {"type": "str, optional", "description", "default"}}."""
    tools = read_tools(value)
    for tool in tools:
        function = tool["function"]
        parameters = function["parameters"]
        if not isinstance(parameters.get("properties"), dict):
            function["parameters"] = _schema_of_xlam(parameters)
    return tools


def _schema_of_xlam(parameters: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for name, about in parameters.items():
        about = about if isinstance(about, dict) else {"type": str(about)}
        written = str(about.get("type", "any"))
        base, _, rest = written.partition(", optional")
        optional = base != written or base.startswith("Optional[")
        properties[name] = {
            **json_type(base + rest),
            **{key: about[key] for key in about if key not in ("type", "required")},
        }
        if not optional and about.get("default", _NO_DEFAULT) is _NO_DEFAULT:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def json_type(python: str) -> dict[str, Any]:
    """`List[int]` -> {"type": "array", "items": {"type": "integer"}}; what is unknown becomes {} (anything)."""
    python = python.strip()
    if match := _CONTAINER.match(python):
        outer, inner = match[1].lower(), match[2]
        if outer == "optional":
            return json_type(inner)
        if outer == "union":
            kinds = [json_type(part) for part in inner.split(",") if part.strip() not in ("None", "NoneType")]
            return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if outer in ("list", "set", "sequence", "iterable", "tuple"):
            items = {} if outer == "tuple" and "," in inner else json_type(inner)
            return {"type": "array", **({"items": items} if items else {})}
        return {"type": "object"} if outer in ("dict", "mapping") else {}
    known = _PYTHON_TYPES.get(python.lower())
    return {"type": known} if known else {}


def strip_nulls(value: Any) -> Any:
    """Without keys whose value is null, at every depth: Arrow fills in the fields of all other rows with them."""
    if isinstance(value, dict):
        return {key: strip_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [strip_nulls(inner) for inner in value]
    return value


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "text", type(None): "nothing"}.get(type(value), repr(value)[:40])
