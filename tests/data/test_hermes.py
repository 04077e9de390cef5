"""Hermes marks in texts: a mark counts where its content follows, and a text's own words stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.test_formats import HERMES_SYSTEM
from tests.data.toys import WEATHER
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.formats import convert
from toolkit.data.notes import Remarks, RowError

OSLO = ToolCall("get_weather", {"city": "Oslo"})
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def read(*said: tuple[str, str], system: str = HERMES_SYSTEM, **more: Any) -> Chat:
    turns = [{"from": who, "value": text} for who, text in said]
    row = {"conversations": [{"from": "system", "value": system}, {"from": "human", "value": "?"}, *turns], **more}
    return convert(row, "auto", where="x:1", source="x", remarks=Remarks())


def answers(chat: Chat) -> list[Turn]:
    return [turn for turn in chat.turns if turn.role == "assistant"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, [Turn("assistant", "", (OSLO,))]),
        (f"Let me look.\n{CALL}\n{CALL}", [Turn("assistant", "Let me look.", (OSLO, OSLO))]),
        (f"{CALL}\nI asked.", [Turn("assistant", "", (OSLO,)), Turn("assistant", "I asked.")]),
        (CALL.removesuffix("\n</tool_call>"), [Turn("assistant", "", (OSLO,))]),
        (
            '<tool_call>{"name": "get_weather", "arguments": {"city": "</tool_call>"}}</tool_call>',
            [Turn("assistant", "", (ToolCall("get_weather", {"city": "</tool_call>"}),))],
        ),
        ("It writes <tool_call> first.", [Turn("assistant", "It writes <tool_call> first.")]),
        (
            f"<think>I could {CALL}</think>\nSo: {CALL}",
            [Turn("assistant", f"<think>I could {CALL}</think>\nSo:", (OSLO,))],
        ),
    ],
)
def test_calls_in_a_text(text: str, expected: list[Turn]) -> None:
    assert answers(read(("gpt", text))) == expected


def test_thoughts_and_weights_beside_the_text_are_kept() -> None:
    row = {
        "messages": [
            {"role": "system", "content": HERMES_SYSTEM},
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "Bad.", "weight": 0},
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": CALL, "reasoning_content": "Look."},
        ]
    }
    chat = convert(row, "auto", where="x:1", source="x")
    assert chat.meta == {"format": "hermes"}
    assert answers(chat) == [
        Turn("assistant", "Bad.", trained=False),
        Turn("assistant", "<think>\nLook.\n</think>\n\n", (OSLO,)),
    ]


@pytest.mark.parametrize(
    ("system", "own"),
    [
        (HERMES_SYSTEM, "Be brief."),
        (
            f"Be kind. # Tools\n\nYou may call one. <tools>\n{json.dumps(WEATHER)}\n</tools>\n\nFor each call, so.",
            "Be kind.",
        ),
        (f"<tools>[{json.dumps(WEATHER)}]</tools>\n{CALL}\nToday is Monday.", "Today is Monday."),
        (
            f"# Tools of the trade\nBe kind. <tools>{json.dumps(WEATHER)}</tools> Be brief.",
            "# Tools of the trade\nBe kind.\n\nBe brief.",
        ),
    ],
)
def test_the_system_s_own_words_stay(system: str, own: str) -> None:
    chat = read(("gpt", CALL), system=system)
    assert chat.turns[0] == Turn("system", own) and WEATHER in chat.tools


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<tool_response>\nrain\n</tool_response>", ["rain"]),
        ("<tool_response>1</tool_response>\n<tool_response>2</tool_response>", ["1", "2"]),
        ("Note: <tool_response>1</tool_response>", ["Note: <tool_response>1</tool_response>"]),
        ("plain", ["plain"]),
    ],
)
def test_results_lose_nothing(text: str, expected: list[str]) -> None:
    chat = read(("gpt", "\n".join([CALL] * len(expected))), ("tool", text), ("gpt", "So."))
    assert [turn.content for turn in chat.turns if turn.role == "tool"] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<tool_call>{</tool_call>", "turn 3: <tool_call>: not JSON"),
        ('<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}} or so</tool_call>', "more after the call"),
        ('<tool_call>{"name": "get_weather"', "not JSON"),
        (
            "<tool_call>{'name': 'get_weather', 'arguments': {'city': {1, 2}}}</tool_call>",
            "a set, which JSON can't say",
        ),
        ("<tool_call>{'name': 'get_weather', 'arguments': {(1, 2): 1}}</tool_call>", "a key that is no text"),
        ("<tool_call>{'name': 'get_weather', 'arguments': {1: 1}}</tool_call>", "a key that is no text"),
        ("<tool_call>{'name': 'get_weather', 'arguments': {'city': 1j}}</tool_call>", "which JSON can't say"),
        ('<tool_call>{"name": "get_weather", "arguments": {"city": NaN}}</tool_call>', "NaN is no number"),
        ('<tool_call>{"name": "get_weather", "city": "Oslo"}</tool_call>', "has no arguments, but city"),
    ],
)
def test_bad_calls(text: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(("gpt", text))


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("[" * 2000 + "]" * 2000, "nested too deep|wanted a function schema"),
        ('{"name": "f"', "<tools>: not JSON"),
        ('{"name": "f", "name": "g"}', "stands twice"),
        (json.dumps(WEATHER)[:-1], "<tools>: not JSON"),
    ],
)
def test_bad_lists_of_tools(tools: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(("gpt", CALL), system=f"<tools>{tools}</tools>")
    with pytest.raises(RowError, match=r"the list has no </tools>|not JSON|nested too deep|stands twice"):
        read(("gpt", CALL), system=f"<tools>{tools}")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (CALL, 0),
        (f"{CALL}{CALL}\nI asked.", 0),
        (CALL.removesuffix("</tool_call>"), 1),
        (CALL.removesuffix("\n</tool_call>").replace('"', "'"), 1),
        (f"{CALL.removesuffix('</tool_call>')}{CALL}", 1),
        (f"{CALL}\n{CALL.removesuffix('</tool_call>')}", 1),
    ],
)
def test_a_call_without_its_closing_mark_is_counted(text: str, times: int) -> None:
    remarks = Remarks()
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]
    convert({"messages": messages, "tools": [WEATHER]}, "auto", where="x:1", source="x", remarks=remarks)
    assert remarks["calls without a closing mark are read as whole"] == times
