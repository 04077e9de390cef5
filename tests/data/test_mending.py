"""Nulls of Arrow go, nulls that are meant stay; other languages' names of types are read as JSON's."""

from __future__ import annotations

import json
from typing import Any

import pyarrow
import pytest

from tests.data.toys import tool
from toolkit.data.formats import convert
from toolkit.data.mending import mend, mend_arguments
from toolkit.data.notes import Remarks

CITY: dict[str, Any] = {"type": "string"}
OPTIONAL = {"anyOf": [CITY, {"type": "null"}], "default": None}


def weather(**parameters: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"city": CITY}, **parameters}


@pytest.mark.parametrize(
    ("schema", "padded", "expected", "nulls"),
    [
        (
            {"type": "object", "properties": {"city": {"type": "string", "enum": None}, "song": None}},
            False,
            weather(),
            2,
        ),
        (
            weather(required=None, **{"$defs": {"a": None, "b": {"title": None}}}),
            False,
            weather(**{"$defs": {"b": {}}}),
            3,
        ),
        (
            {"anyOf": [{"type": "array", "items": {"format": None}}]},
            False,
            {"anyOf": [{"type": "array", "items": {}}]},
            1,
        ),
        ({"enum": ["a", None], "examples": [None]}, True, {"enum": ["a", None], "examples": [None]}, 0),
        ({"type": "string", "default": None}, False, {"type": "string", "default": None}, 0),
        ({"type": "string", "default": None}, True, {"type": "string"}, 1),
        ({"type": ["string", "null"], "default": None}, True, {"type": ["string", "null"], "default": None}, 0),
        (
            {"anyOf": [CITY, {"type": "null"}], "default": None},
            True,
            {"anyOf": [CITY, {"type": "null"}], "default": None},
            0,
        ),
        ({"const": None}, False, {"const": None}, 0),
        ({"default": {"a": None}}, True, {"default": {"a": None}}, 0),
        ({"properties": {"default": None, "const": CITY}}, False, {"properties": {"const": CITY}}, 1),
        ({"properties": {"type": {"type": "string"}}}, True, {"properties": {"type": {"type": "string"}}}, 0),
    ],
)
def test_nulls_of_schemas(schema: dict[str, Any], padded: bool, expected: dict[str, Any], nulls: int) -> None:
    found = mend(schema, padded=padded)
    assert (found.schema, found.nulls) == (expected, nulls)


OPEN = {"type": "object"}
NESTED = {
    "type": "object",
    "properties": {
        "city": CITY,
        "units": {"type": "string"},
        "day": {"type": ["string", "null"]},
        "at": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number"}}}},
    },
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("arguments", "schema", "padded", "expected"),
    [
        ({"city": "Oslo", "song": None}, NESTED, False, {"city": "Oslo"}),
        ({"city": "Oslo", "units": None}, NESTED, False, {"city": "Oslo", "units": None}),
        ({"city": "Oslo", "units": None}, NESTED, True, {"city": "Oslo"}),
        ({"city": "Oslo", "units": None, "song": None}, NESTED, False, {"city": "Oslo"}),
        ({"city": None, "day": None}, NESTED, True, {"city": None, "day": None}),
        ({"at": [{"lat": 1.0, "lon": None}, {"lat": None}]}, NESTED, True, {"at": [{"lat": 1.0}, {}]}),
        ({"any": None, "list": [None]}, OPEN, False, {"any": None, "list": [None]}),
        ({"any": None, "list": [None]}, OPEN, True, {"list": [None]}),
    ],
)
def test_nulls_of_arguments(arguments: Any, schema: Any, padded: bool, expected: Any) -> None:
    found, nulls = mend_arguments(arguments, schema, padded=padded)
    assert found == expected
    assert nulls == json.dumps(arguments).count("null") - json.dumps(expected).count("null")


def test_a_row_that_went_through_arrow_is_the_row_before() -> None:
    """Written out of a table again, every object has the keys of all of them."""
    tools = [
        tool("get_weather", "", city=CITY, units_={"type": "string", "enum": ["C", "F"]}),
        tool("play", "", song={"type": "string", "default": "any"}, loud_={"type": "boolean"}),
    ]
    calls = [
        {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}},
        {"type": "function", "function": {"name": "play", "arguments": {"song": "Hey", "loud": False}}},
    ]
    messages = [
        {"role": "user", "content": "Both."},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "4 C"},
        {"role": "tool", "content": "on"},
        {"role": "assistant", "content": "Done."},
    ]
    row = {"messages": messages, "tools": tools}
    padded = pyarrow.Table.from_pylist([row]).to_pylist()[0]
    written = padded["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert written == {"city": "Oslo", "song": None, "loud": None}
    remarks = Remarks()
    chat = convert(padded, "auto", where="x.jsonl:1", source="x.jsonl", remarks=remarks)
    plain = convert(row, "auto", where="x.jsonl:1", source="x.jsonl")
    assert chat == plain
    assert remarks["nulls in tool schemas, which Arrow fills in, are taken out"] == 4
    assert remarks["nulls in arguments, which Arrow fills in, are taken out"] == 3


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("dict", "object"),
        ("float", "number"),
        ("STRING", "string"),
        (["int", "null"], ["integer", "null"]),
        (["int", "integer"], ["integer"]),
        ("any", None),
        ("text", "text"),
        (5, 5),
    ],
)
def test_types_of_other_languages(written: Any, read: Any) -> None:
    found = mend({"properties": {"a": {"type": written}}}, padded=False)
    assert found.schema == {"properties": {"a": {} if read is None else {"type": read}}}
    assert mend({"properties": {"type": CITY}, "enum": ["dict"]}, padded=False).types == {}
