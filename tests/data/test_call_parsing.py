"""The parsers never raise, read back what the writers write, and say what they had to tolerate."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.chats import ToolCall
from toolkit.data.call_parsing import PARSERS, parse
from toolkit.data.calls import write_calls

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
# Arguments whose names and values look like marks and calls are the hard ones.
SPICY = st.sampled_from(["</tool_call>", "<tool_call>", "</think>", "```", '{"tool": "x"}', "}", "[", '\\"', "\n"])
CALLS = st.builds(
    ToolCall,
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.dictionaries(st.text(min_size=1) | st.sampled_from(["tool", "name", "result", "method"]), VALUES | SPICY),
)
PROSE = st.sampled_from(["", "Let me look.", "I'll check [1] and {this}.\n\nOne moment", 'Data: {"name": "Ada"}'])


def hermes(calls: list[ToolCall]) -> str:
    """As Qwen3's template writes calls."""
    return "\n".join(
        f'<tool_call>\n{{"name": "{call.name}", "arguments": {json.dumps(call.arguments, ensure_ascii=False)}}}\n'
        "</tool_call>"
        for call in calls
    )


def written(calls: list[ToolCall], call_format: str) -> str:
    return hermes(calls) if call_format == "native" else write_calls(calls, call_format)


@pytest.mark.parametrize("call_format", PARSERS)
@given(calls=st.lists(CALLS, min_size=1, max_size=4), prose=PROSE, think=st.booleans())
def test_reads_back_what_the_writers_write(call_format: str, calls: list[ToolCall], prose: str, think: bool) -> None:
    text = written(calls, call_format)
    text = f"{prose}\n{text}" if prose else text
    parsed = parse(f"<think>\n\n</think>\n\n{text}" if think else text, call_format)
    assert list(parsed.calls) == calls
    assert parsed.has_call and parsed.valid_json and parsed.in_format
    assert parsed.problems == ()
    assert parsed.text == prose.strip()


PIECES = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<think>", "</think>", "```json\n", "```", "{", "}", "[", "]", ",", ":", '"'),
        *('"tool"', '"name"', '"function"', '"arguments"', '"params"', '"method"', '"tools/call"', '"jsonrpc"', "\n"),
        *(
            '{"tool": "a", "arguments": {}}',
            '{"name": "a", "arguments": "',
            '{"tool_calls": [',
            "NaN",
            "null",
            "'",
            "1",
        ),
    ]
)


@pytest.mark.parametrize("call_format", PARSERS)
@given(text=st.text() | st.lists(PIECES, max_size=25).map("".join) | VALUES.map(json.dumps))
def test_never_raises_and_never_contradicts_itself(call_format: str, text: str) -> None:
    parsed = parse(text, call_format)
    assert parsed.has_call or not (parsed.calls or parsed.valid_json or parsed.in_format)
    assert parsed.valid_json or not parsed.in_format
    if parsed.has_call and not (parsed.valid_json and parsed.in_format):
        assert parsed.problems


@pytest.mark.parametrize("call_format", PARSERS)
@pytest.mark.parametrize(
    "text", ["[" * 20_000, '{"tool":' * 5_000, '{"a":' * 5_000, "<tool_call>" * 2_000, '"' * 9_999]
)
def test_deep_and_degenerate_text_is_read_in_time(call_format: str, text: str) -> None:
    assert parse(text, call_format).calls == ()


WEATHER = ToolCall("get_weather", {"city": "Oslo"})


@pytest.mark.parametrize(
    ("call_format", "text", "in_format"),
    [
        ("native", '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}', True),
        ("native", 'Sure.\n<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "get_weather"}\n</tool_call>', True),
        ("native", '<tool_call>```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}```</tool_call>', False),
        ("native", '<tool_call>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</tool_call>', False),
        ("native", '{"name": "get_weather", "arguments": {"city": "Oslo"}}', False),
        ("json", '```json\n{"tool": "get_weather", "arguments": {"city": "Oslo"}}\n```', True),
        ("json", 'Here:\n```\n[{"tool": "get_weather", "arguments": {"city": "Oslo"}}]\n```\nDone.', True),
        ("json", '{"name": "get_weather", "parameters": {"city": "Oslo"}}', False),
        ("json", '{"function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}', False),
        ("json", '{"tool_calls": [{"tool": "get_weather", "arguments": {"city": "Oslo"}}]}', False),
        ("json", '{"tool": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}', False),
        ("json", '{\n  "tool": "get_weather",\n  "arguments": {\n    "city": "Oslo"\n  }\n}', True),
        ("json", '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>', False),
        ("jsonrpc", '{"tool": "get_weather", "arguments": {"city": "Oslo"}}', False),
        ("jsonrpc", '{"jsonrpc": "2.0", "id": 7, "method": "get_weather", "params": {"city": "Oslo"}}', False),
        (
            "jsonrpc",
            '{"method": "tools/call", "params": {"name": "get_weather", "arguments": {"city": "Oslo"}}}',
            False,
        ),
    ],
)
def test_other_ways_to_write_a_call(call_format: str, text: str, in_format: bool) -> None:
    parsed = parse(text, call_format)
    assert parsed.calls == (WEATHER,)
    assert parsed.valid_json
    assert parsed.in_format == in_format


@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "get_weather", "arguments": {"city": "Oslo",}}',
        '{"tool": "get_weather", "arguments": {"city": "Oslo"}}}',
    ],
)
def test_what_a_strict_parser_refuses_is_read_but_is_not_valid(text: str) -> None:
    parsed = parse(text, "json")
    assert parsed.calls == (WEATHER,)
    assert parsed.has_call and not parsed.valid_json and not parsed.in_format
    assert parsed.text == ""


def test_raw_line_break_in_a_string() -> None:
    parsed = parse('{"tool": "send", "arguments": {"text": "a\nb"}}', "json")
    assert parsed.calls == (ToolCall("send", {"text": "a\nb"}),)
    assert not parsed.valid_json


@pytest.mark.parametrize("call_format", PARSERS)
@pytest.mark.parametrize(
    "text",
    [
        '{"tool": "get_weather", "arguments": {"city": "Os',
        '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "argum',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}\n</tool_call>',
        "<tool_call>get_weather(city='Oslo')</tool_call>",
        "<tool_call>",
        '{"tool": "get_weather", "arguments": "city=Oslo"}',
    ],
)
def test_a_broken_call_is_an_attempt_and_nothing_is_guessed(call_format: str, text: str) -> None:
    parsed = parse(text, call_format)
    assert parsed.has_call and not parsed.valid_json
    assert parsed.calls == ()
    assert parsed.problems


@pytest.mark.parametrize("call_format", PARSERS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Which city do you mean?",
        'The record is {"name": "Ada", "age": 36}.',
        'I know {"type": "function", "function": {"name": "f", "description": "does f", "parameters": {}}}.',
        '{"jsonrpc": "2.0", "id": 1, "result": {"name": "x"}}',
        "Use [a, b] or {c}; see [1].",
        "[1, 2, 3]",
        '{"result": {"tool": "hammer"}}',
    ],
)
def test_data_in_an_answer_is_no_call(call_format: str, text: str) -> None:
    parsed = parse(text, call_format)
    assert not parsed.has_call
    assert parsed.text == text


def test_calls_within_thinking_do_not_count() -> None:
    call = '{"tool": "a", "arguments": {}}'
    assert not parse(f"<think>maybe {call}</think>No.", "json").has_call
    assert not parse(f"maybe {call}</think>No.", "json").has_call
    unfinished = parse(f"<think>maybe {call}", "json")
    assert not unfinished.has_call and unfinished.text == "" and unfinished.problems == ("the thinking never ends",)


def test_a_broken_call_does_not_hide_the_next() -> None:
    parsed = parse('{"tool": "a", "arguments": {"x": 1}\n{"tool": "b", "arguments": {}}', "json")
    assert parsed.calls == (ToolCall("b", {}),)
    assert parsed.has_call and not parsed.valid_json


def test_an_item_that_is_no_call_is_reported() -> None:
    parsed = parse('[{"tool": "a", "arguments": {}}, 5]', "json")
    assert parsed.calls == (ToolCall("a", {}),)
    assert parsed.problems == ("an item of the list is no call",)


def test_text_around_calls_is_kept_in_order() -> None:
    parsed = parse('First.\n```json\n{"tool": "a", "arguments": {}}\n```\nLast.', "json")
    assert parsed.text == "First.\n\nLast."
