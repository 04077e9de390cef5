from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.toys import ADD, WEATHER, calls, tool, weather_chat
from toolkit.chats import ToolCall, Turn
from toolkit.data.calls import write_calls
from toolkit.data.legacy import to_messages, tools_text
from toolkit.data.signatures import signature
from toolkit.data.template import Rendering

OSLO = ToolCall("get_weather", {"city": "Oslo"})
BERGEN = ToolCall("get_weather", {"city": "Bergen"})


def test_json_is_the_chapters_format_one_call_a_line() -> None:
    assert write_calls([OSLO, BERGEN], "json") == (
        '{"tool": "get_weather", "arguments": {"city": "Oslo"}}\n'
        '{"tool": "get_weather", "arguments": {"city": "Bergen"}}'
    )


def test_jsonrpc_is_what_mcp_writes() -> None:
    one = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "get_weather", "arguments": {"city": "Oslo"}},
    }
    assert json.loads(write_calls([OSLO], "jsonrpc")) == one
    batch = json.loads(write_calls([OSLO, BERGEN], "jsonrpc"))
    assert [request["id"] for request in batch] == [1, 2] and batch[0] == one


def test_jsonrpc_results_are_responses_to_the_ids_of_their_calls() -> None:
    chat = weather_chat()
    results = (Turn("tool", '{"sky": "rain",  "n": 1e2}'), Turn("tool", "no such city"))
    chat = replace(
        chat, turns=(chat.turns[1], Turn("assistant", "", (OSLO, BERGEN)), *results, Turn("assistant", "So."))
    )
    written = to_messages(chat, Rendering("jsonrpc"), tool_role=True).messages
    assert [message["role"] for message in written] == ["system", "user", "assistant", "tool", "assistant"]
    assert written[3]["content"].startswith('[{"jsonrpc": "2.0", "id": 1, "result": {"sky": "rain",  "n": 1e2}}, ')
    assert json.loads(written[3]["content"])[1] == {"jsonrpc": "2.0", "id": 2, "result": "no such city"}
    one = to_messages(weather_chat(), Rendering("jsonrpc"), tool_role=True).messages[3]
    assert one["content"] == '{"jsonrpc": "2.0", "id": 1, "result": {"sky": "rain"}}'


@pytest.mark.parametrize("result", ["NaN", "Infinity", "", "{", "plain"])
def test_jsonrpc_results_are_always_json(result: str) -> None:
    chat = weather_chat()
    turns = tuple(replace(turn, content=result) if turn.role == "tool" else turn for turn in chat.turns)
    content = to_messages(replace(chat, turns=turns), Rendering("jsonrpc"), tool_role=True).messages[3]["content"]
    assert json.loads(content, parse_constant=lambda name: pytest.fail(name))["result"] == result


@given(st.lists(calls, min_size=1, max_size=4))
def test_calls_are_json_that_says_the_same_again(made: list[ToolCall]) -> None:
    lines = [json.loads(line) for line in write_calls(made, "json").splitlines()]
    assert lines == [{"tool": call.name, "arguments": call.arguments} for call in made]
    written = json.loads(write_calls(made, "jsonrpc"))
    params = [request["params"] for request in (written if isinstance(written, list) else [written])]
    assert params == [{"name": call.name, "arguments": call.arguments} for call in made]


def test_the_system_turn_keeps_the_users_own_text_first() -> None:
    system = to_messages(weather_chat(), Rendering("json"), tool_role=True).messages[0]["content"]
    assert system.startswith("Be brief.\n\nTools:\nget_weather(city: string) - Current weather of a city.\nadd(")
    no_tools = to_messages(replace(weather_chat(), tools=()), Rendering("json"), tool_role=True)
    assert no_tools.messages[0]["content"] == "Be brief." and no_tools.tools is None


def test_schemas_line_by_line() -> None:
    lines = tools_text([WEATHER, ADD], "json", "schema").splitlines()
    assert json.loads(lines[1]) == WEATHER["function"] and json.loads(lines[2]) == ADD["function"]


NESTED = {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat"]}


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            tool(
                "get_weather",
                "Current weather of a city.",
                city={"type": "string"},
                units_={"type": "string", "enum": ["metric", "imperial"]},
            ),
            'get_weather(city: string, units?: "metric" | "imperial") - Current weather of a city.',
        ),
        (tool("now"), "now()"),
        (tool("f", "", at={"type": "string", "format": "date-time"}), "f(at: string date-time)"),
        (tool("f", "", n_={"type": "integer", "minimum": 1, "maximum": 9, "default": 3}), "f(n?: integer 1..9 = 3)"),
        (tool("f", "", tags={"type": "array", "items": {"type": "string"}}), "f(tags: string[])"),
        (tool("f", "", xs={"type": "array", "items": {"enum": ["a", "b"]}}), 'f(xs: ("a" | "b")[])'),
        (tool("f", "", p=NESTED), "f(p: {lat: number, lon?: number})"),
        (tool("f", "", v={"type": ["string", "null"]}), "f(v: string | null)"),
        (tool("f", "", v={"anyOf": [{"type": "integer"}, {"const": "all"}]}), 'f(v: integer | "all")'),
        (tool("f", "", v={}), "f(v: any)"),
        # a description that only repeats names is left out, one that adds something stays
        (
            tool("mail", "Send mail.", to={"type": "string", "description": "Who to mail the mail to."}),
            "mail(to: string (Who to mail the mail to)) - Send mail.",
        ),
        (
            tool("mail", "Send mail.", mailSubject={"type": "string", "description": "The subject of the mail."}),
            "mail(mailSubject: string) - Send mail.",
        ),
    ],
)
def test_signatures(made: dict[str, Any], line: str) -> None:
    assert signature(made) == line


def test_local_references_are_followed_and_circles_end() -> None:
    made = tool("f", "", city={"$ref": "#/$defs/City"}, node={"$ref": "#/$defs/Node"})
    made["function"]["parameters"]["$defs"] = {
        "City": {"type": "string"},
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
    }
    line = signature(made)
    assert line.startswith("f(city: string, node: {next?: {next?:") and line.count("next") < 10
