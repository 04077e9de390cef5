"""Tool schemas in the one shape that the toolkit keeps: OpenAI function schemas.

Exactly `name`, `description` and `parameters`, in this order, because servers (llama.cpp, vLLM) rebuild a tool from
these three before they hand it to the chat template: a tool without a description gets the empty one that llama.cpp
inserts, and other keys go. So the text that the model is trained on is the text it meets when it serves. Inside
`parameters` everything stays as it came, the order of keys too, but for nulls and the names of types, see
`toolkit.data.mending`. Parameters that are no JSON schema make a bad row.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolkit.data.jsontext import dumps, loads, refuse_deep
from toolkit.data.mending import Mended, mend
from toolkit.data.notes import Fields, Remarks, RowError, no_name, quoted, report_unused, shown
from toolkit.data.schema_rules import check_schema
from toolkit.errors import meant, nearest

SCHEMA_KEYS = ("parameters", "input_schema", "inputSchema")  # OpenAI's, Anthropic's and MCP's
_DECLARATIONS = ("functionDeclarations", "function_declarations")  # Gemini's, whose one entry lists several tools
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
_A_NAME = re.compile(r"(?!(?:nan|none|-?infinity)\Z)[^\W\d][\w.:/-]*", re.IGNORECASE)
_ANYTHING = ("any", "")
_CONTAINER = re.compile(r"^(\w+)\s*\[(.*)\]$", re.DOTALL)
_OF_A_PARAMETER = {"type", "description", "enum", "anyOf"}
_HOLD_SCHEMAS = {
    *("additionalProperties", "contains", "default", "definitions", "dependencies", "dependentSchemas", "$defs"),
    *("else", "if", "items", "not", "patternProperties", "propertyNames", "then", "unevaluatedProperties"),
}
_KEYWORDS = (
    "type",
    "properties",
    "required",
    "description",
    "title",
    "additionalProperties",
    "definitions",
    "examples",
)
_DEEPEST_TYPE = 20  # List[List[...]]
_LONGEST_TYPE = 500
_NO_DEFAULT = object()
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")  # Unicode's categories: control, bidi, zero-width, line ends, private


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a row. `padded`: nulls in them show that the row came through Arrow."""

    schemas: tuple[dict[str, Any], ...] = ()
    padded: bool = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.schemas)

    def __bool__(self) -> bool:
        return bool(self.schemas)

    @property
    def names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.schemas]


@dataclass(frozen=True, slots=True)
class _Read:
    """One tool, kept for the next row that has it."""

    schema: dict[str, Any]
    remarks: Remarks
    nulls: int


def read_tools(value: Any, remarks: Remarks, *, xlam: bool = False) -> Tools:
    """The tools of a row: a list, or JSON text of one, of function schemas with or without the wrapper that OpenAI or
    Gemini puts around them.

    With `xlam` parameters may be written as xlam does: {name: {"type": "str, optional", "description", "default"}}.
    Raises `RowError`.
    """
    if isinstance(value, str):
        value = _json_of(value, "tools") if value.strip() else []
    if value is None:
        return Tools()
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"tools: wanted a list of function schemas, got {_kind(value)}")
    placed = [(place, _text_of(tool, place)) for place, tool in _each(value, remarks)]
    texts = [text for _, text in placed]
    found = [_read(text, False, xlam) for text in texts]
    for (place, _), one in zip(placed, found, strict=True):
        if isinstance(one, tuple):
            message, cause = one
            raise RowError(f"{place}: {message}", cause)
    padded = any(one.nulls for one in found if isinstance(one, _Read))
    if padded:  # then nulls where a null could stand are Arrow's too
        found = [_read(text, True, xlam) for text in texts]
    tools = []
    for one in found:
        assert isinstance(one, _Read)
        remarks.update(one.remarks)
        if one.nulls:
            remarks["nulls in tool schemas, which Arrow fills in, are taken out"] += one.nulls
        tools.append(one.schema)
    return Tools(tuple(tools), padded)


def _each(listed: list[Any], remarks: Remarks) -> Iterator[tuple[str, Any]]:
    """Each tool with its place; of an entry as Gemini's, each of its declarations."""
    for index, tool in enumerate(listed):
        place = f"tools[{index}]"
        if isinstance(tool, str):
            tool = _json_of(tool, place)
        fields = Fields(tool if isinstance(tool, dict) else {}, place)
        if not fields.has(*_DECLARATIONS):
            yield place, tool
            continue
        key = next(name for name in _DECLARATIONS if fields.has(name))
        inner = f"{place}.{key}"
        declared = fields.take(*_DECLARATIONS)
        fields.known("type")
        report_unused(fields, f"tools, beside {key}", remarks)
        if isinstance(declared, str):
            declared = _json_of(declared, inner)
        if isinstance(declared, dict):
            declared = [declared]
        if not isinstance(declared, list):
            raise RowError(f"{inner}: wanted a list of name, description and parameters, got {_kind(declared)}")
        yield from ((f"{inner}[{number}]", one) for number, one in enumerate(declared))


def _text_of(value: Any, what: str) -> str:
    if isinstance(value, str):
        value = _json_of(value, what)
    if not isinstance(value, dict):
        raise RowError(f"{what}: wanted a function schema, got {_kind(value)}", cause="a tool that is no object")
    text = dumps(value, what)
    refuse_deep(value, text, what)
    return text


def _json_of(text: str, what: str) -> Any:
    try:
        return loads(text, what)
    except RowError:
        if _A_NAME.fullmatch(text.strip()) is None:
            raise
        raise RowError(
            f"{what}: {quoted(text)} is a tool's name, and a name alone is no schema; wanted an object with name, "
            "description and parameters",
            cause="a tool's name without its schema",
        ) from None


@lru_cache(maxsize=4096)
def _read(text: str, padded: bool, xlam: bool) -> _Read | tuple[str, str]:
    """A tool out of its JSON text, or what is wrong with it and the cause of that. Data sets have few tools and many
    rows: each is read once."""
    remarks = Remarks()
    try:
        schema, nulls = _tool(json.loads(text), remarks, padded=padded, xlam=xlam)
    except RowError as error:
        return str(error), error.cause
    return _Read(schema, remarks, nulls)


def _tool(value: dict[str, Any], remarks: Remarks, *, padded: bool, xlam: bool) -> tuple[dict[str, Any], int]:
    outer = Fields(value, "a tool")
    outer.known("type")
    inner = outer.take("function") if isinstance(value.get("function"), dict | str) else None
    if isinstance(inner, str):
        inner = loads(inner, "function")
    if inner is not None and not isinstance(inner, dict):
        raise RowError(f"function: wanted an object, got {_kind(inner)}")
    fields = outer if inner is None else Fields(inner, "a tool")
    name = _name(fields.take("name"), fields)
    description = fields.take("description")
    parameters = _parameters(fields, name)
    if xlam and not isinstance(parameters.get("properties"), dict):
        parameters = _schema_of_xlam(parameters, remarks)
    else:
        _of_objects(parameters, name, remarks)
    mended: Mended = mend(parameters, padded=padded)
    parameters = mended.schema
    for written, read in mended.types.items():
        remarks[f"tool schemas: type {shown(written)} is read as {read}"] += mended.types_times[written]
    if reason := check_schema(parameters):
        raise RowError(
            f"the parameters of {shown(name)} are no JSON schema: {reason}", cause="parameters that are no JSON schema"
        )
    report_unused(fields, "tools", remarks)
    if inner is not None:
        report_unused(outer, "tools, beside function", remarks)
    description = "" if description is None else description
    if not isinstance(description, str):
        raise RowError(f"the description of {shown(name)}: wanted text, got {_kind(description)}")
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}, (
        mended.nulls
    )


def _name(name: Any, fields: Fields) -> str:
    if name is not None and (not isinstance(name, str) or not name):
        raise RowError(f"a tool's name: {no_name(name)}", cause="a tool without a name")
    if name is None:
        raise RowError(f"a tool needs a name: found {fields.found()}", cause="a tool without a name")
    if reason := bad_name(name):
        raise RowError(f"the tool's name {shown(name)} {reason}", cause="a tool's name that can't be written in a call")
    return name


def bad_name(name: str) -> str:
    """Why a tool's name can't stand in a call, or an empty string. Templates write it between quotes as it is."""
    if '"' in name or "\\" in name:
        return "holds a quote or a backslash, so a call of it would be no JSON"
    if unseen := next((one for one in name if unicodedata.category(one) in _UNSEEN), ""):
        return f"holds a control character or one that is not seen (U+{ord(unseen):04X})"
    return "begins or ends in blank space" if name != name.strip() else ""


def _parameters(fields: Fields, name: str) -> dict[str, Any]:
    parameters = fields.take(*SCHEMA_KEYS)
    if isinstance(parameters, str):
        parameters = loads(parameters, f"parameters of {shown(name)}") if parameters.strip() else {}
    if parameters is None:
        for key, value in fields.unused():
            if isinstance(value, dict) and value:
                raise RowError(
                    f"tool {shown(name)} has no parameters, but {shown(key)}, which is not read; "
                    f"wanted one of {', '.join(SCHEMA_KEYS)}",
                    cause="a tool whose parameters have an unknown name",
                )
        return {}
    if not isinstance(parameters, dict):
        raise RowError(f"parameters of {shown(name)}: wanted a JSON schema, got {_kind(parameters)}")
    return parameters


def _of_objects(parameters: dict[str, Any], name: str, remarks: Remarks) -> None:
    """Refuse parameters that are written beside each other, without `properties`: as a JSON schema they say nothing, so
    that the tool would have none. Of a key that is nearly a keyword, say so."""
    if not isinstance(parameters.get("properties"), dict):
        for key, value in parameters.items():
            if isinstance(value, dict) and key not in _HOLD_SCHEMAS and not value.keys().isdisjoint(_OF_A_PARAMETER):
                raise RowError(
                    f"parameters of {shown(name)}: {shown(key)} is no keyword of a JSON schema; wanted "
                    '{"type": "object", "properties": {' + f'"{key}": ...' + "}}",
                    cause="parameters that are not within properties",
                )
        return
    for key in parameters:
        if key not in _KEYWORDS and (near := nearest(key, _KEYWORDS, alike=0.8)):
            remarks[f"tool schemas: {shown(key)} is no keyword, and is left as it is{meant(near)}"] += 1


def _schema_of_xlam(parameters: dict[str, Any], remarks: Remarks) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for name, about in parameters.items():
        about = about if isinstance(about, dict) else {"type": str(about)}
        written = str(about.get("type", "any"))
        base, _, rest = written.partition(", optional")
        optional = base != written or base.startswith("Optional[")
        kind = json_type(base + rest)
        if not kind and base.strip().lower() not in _ANYTHING:
            remarks[f"tool schemas: type {shown(base)} is read as anything"] += 1
        properties[name] = {**kind, **{key: about[key] for key in about if key not in ("type", "required")}}
        if not optional and about.get("default", _NO_DEFAULT) is _NO_DEFAULT:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def json_type(python: str, level: int = 0) -> dict[str, Any]:
    """`List[int]` -> {"type": "array", "items": {"type": "integer"}}; what is unknown becomes {} (anything).

    Raises `RowError` for types within types without end.
    """
    if level > _DEEPEST_TYPE or len(python) > _LONGEST_TYPE:
        raise RowError(f"the type {shown(python)} is too long or nested too deep", cause="a type nested too deep")
    python = python.strip()
    if match := _CONTAINER.match(python):
        outer, inner = match[1].lower(), match[2]
        if outer == "optional":
            return json_type(inner, level + 1)
        if outer == "union":
            parts = [part for part in inner.split(",") if part.strip() not in ("None", "NoneType")]
            kinds = [json_type(part, level + 1) for part in parts]
            return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if outer in ("list", "set", "sequence", "iterable", "tuple"):
            items = {} if outer == "tuple" and "," in inner else json_type(inner, level + 1)
            return {"type": "array", **({"items": items} if items else {})}
        return {"type": "object"} if outer in ("dict", "mapping") else {}
    known = _PYTHON_TYPES.get(python.lower())
    return {"type": known} if known else {}


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "text", type(None): "nothing"}.get(type(value)) or shown(value, 40)
