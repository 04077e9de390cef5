"""The tools that a row offers: under which names their schemas stand, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.told import ARGUMENTS, USER, answer, calling, read, refusal
from tests.data.toys import ADD, WEATHER
from toolkit.data.notes import RowError


@pytest.mark.parametrize("key", ["parameters", "input_schema", "inputSchema"])
def test_names_for_a_tools_schema(key: str) -> None:
    schema = WEATHER["function"]["parameters"]
    for written in (schema, json.dumps(schema)):
        bare = {"name": "get_weather", "description": "Current weather of a city.", key: written}
        for tool in (bare, {"type": "function", "function": bare}):
            chat, remarks = read({"messages": [USER, answer()], "tools": [tool]})
            assert chat.tools == (WEATHER,) and remarks == {}


DECLARED = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}


PLAN = {"name": "plan", "parameters": {"type": "OBJECT", "properties": {"days": {"type": "ARRAY"}}}}


@pytest.mark.parametrize("key", ["functionDeclarations", "function_declarations"])
class TestToolsOfGemini:
    def test_as_entries_and_as_the_value(self, key: str) -> None:
        wrapped = {key: [DECLARED, PLAN], "googleSearch": None}
        for tools in (wrapped, [wrapped], json.dumps([wrapped]), [json.dumps(wrapped)]):
            chat, remarks = read({"messages": [USER, calling(name="get_weather", arguments=ARGUMENTS)], "tools": tools})
            assert chat.tools[0] == WEATHER
            assert chat.tools[1]["function"]["parameters"]["properties"] == {"days": {"type": "array"}}
            assert remarks["tool schemas: type STRING is read as string"] == 1

    def test_beside_others_and_each_other(self, key: str) -> None:
        tools = [ADD, {key: [DECLARED]}, {key: PLAN}, {key: []}]
        chat, _ = read({"messages": [USER, answer()], "tools": tools})
        assert [tool["function"]["name"] for tool in chat.tools] == ["add", "get_weather", "plan"]

    def test_what_stands_beside_them_is_told(self, key: str) -> None:
        tools = [{key: [DECLARED], "codeExecution": {}}]
        _, remarks = read({"messages": [USER, answer()], "tools": tools})
        assert remarks[f"tools, beside {key}: key codeExecution is not used"] == 1

    def test_the_place_of_what_is_wrong(self, key: str) -> None:
        for declared, message in (
            (3, f"tools[0].{key}: wanted a list of name, description and parameters, got 3"),
            ([DECLARED, 3], f"tools[0].{key}[1]: wanted a function schema, got 3"),
            ([DECLARED, {"description": "x"}], f"tools[0].{key}[1]: a tool needs a name: found description"),
        ):
            assert refusal(answer(), tools=[{key: declared}]) == message


def test_a_key_that_is_nearly_a_keyword_is_told() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "require": ["city"]}
    _, remarks = read({"messages": [USER, answer()], "tools": [{"name": "f", "parameters": schema}]})
    assert remarks == {"tool schemas: require is no keyword, and is left as it is, did you mean required?": 1}


def test_a_tools_schema_under_a_name_that_is_not_known_is_never_dropped() -> None:
    with pytest.raises(RowError, match="tool f has no parameters, but argsSchema, which is not read"):
        read({"messages": [USER, answer()], "tools": [{"name": "f", "argsSchema": {"type": "object"}}]})


@pytest.mark.parametrize(
    "parameters",
    [
        {"city": {"type": "string"}, "unit": {"type": "string"}},
        {"type": "object", "city": {"type": "string", "description": "Which."}},
        {"type": "object", "required": ["city"], "city": {"enum": ["Oslo", "Rome"]}},
        {"title": {"type": "string"}},
    ],
)
def test_parameters_that_are_not_within_properties_are_refused(parameters: dict[str, Any]) -> None:
    """Read as a JSON schema they say nothing, and the tool would be trained as one without parameters."""
    key = "city" if "city" in parameters else "title"
    with pytest.raises(RowError, match=f"parameters of get_weather: {key} is no keyword of a JSON schema; wanted"):
        read({"messages": [USER, answer()], "tools": [{"name": "get_weather", "parameters": parameters}]})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}, "$defs": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "strict": True},
        {"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
    ],
)
def test_parameters_of_any_other_schema_are_read(parameters: dict[str, Any]) -> None:
    chat, _ = read({"messages": [USER, answer()], "tools": [{"name": "get_weather", "parameters": parameters}]})
    assert chat.tools[0]["function"]["parameters"] == parameters


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\x1b[2Ja", " a", "a "])
def test_names_that_no_call_can_hold_are_refused(name: str) -> None:
    tool = {"name": name, "parameters": {}}
    with pytest.raises(
        RowError, match=r"tools\[0\]: the tool's name .*(holds a quote|holds a control|begins or ends in blank)"
    ):
        read({"messages": [USER, answer()], "tools": [tool]})
