"""Calls in rendered answers are read back before they are trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from tests.data.test_render import NAMES, named, trained_texts
from tests.data.toys import QWEN_LIKE, calls, tokenizer, weather_chat
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.render import Renderer
from toolkit.data.rendered import is_written, written_calls
from toolkit.errors import DataError

# Writes a call in a syntax of its own, which is no JSON.
TAGGED = QWEN_LIKE.replace(
    """'<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) }}""",
    """'<tool_call>\\n<function=' + c.function.name + '>' }}{% for k, v in c.function.arguments.items() %}"""
    """{{ '<' + k + '>' + (v | string) + '</' + k + '>' }}{% endfor %}""",
).replace("'}\\n</tool_call>'", "'\\n</tool_call>'")


def calling(*made: ToolCall, content: str = "") -> Chat:
    return replace(weather_chat(), turns=(Turn("user", "Go"), Turn("assistant", content, made)), where="made:4")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {"a": {"name": "g", "arguments": {}}}}\n</tool_call>', "f"),
        ('{"tool": "f", "arguments": {}}\n{"tool": "g", "arguments": {}}', "fg"),
        (
            '[{"id": 1, "params": {"name": "f", "arguments": {}}}, {"params": {"name": "g", "arguments": {}}}]',
            "fg",
        ),
        ('[TOOL_CALLS][{"name": "f", "arguments": {}}]', "f"),
        ('{"name": "f", "parameters": {}}', "f"),
        ('{"name": "a"b", "arguments": {}}', ""),
        ('{"name": "f", "arguments": {"x": NaN}}', ""),
        ("{" * 50_000, ""),
        ('{"a":' * 50_000, ""),
    ],
)
def test_calls_are_found_as_a_strict_parser_finds_them(text: str, expected: str) -> None:
    assert "".join(name for name, _ in written_calls(text)) == expected


def test_types_of_values_count() -> None:
    text = '{"name": "f", "arguments": {"a": 1}}'
    assert is_written([ToolCall("f", {"a": 1})], text)
    for other in (1.0, True, "1"):
        assert not is_written([ToolCall("f", {"a": other})], text)
    assert not is_written([], text) and not is_written([ToolCall("f", {"a": 1})] * 2, text)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(made=calls)
def test_every_format_writes_calls_that_are_read_back(name: str, made: ToolCall) -> None:
    renderer = named(name)
    assert renderer.call_format != "native" or renderer.markup.json_calls
    (row,) = renderer.rows(calling(made, content='Like {"name": "x", "arguments": {}} {"{".'))
    assert is_written([made], row.text[row.text.rindex('{"{".') + 5 :])


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (QWEN_LIKE, ToolCall('a"b', {})),
        (QWEN_LIKE, ToolCall("a\\b", {})),
        (
            QWEN_LIKE.replace("(c.function.arguments | tojson)", "(c.function.arguments | string)"),
            ToolCall("f", {"a": "x"}),
        ),
        (
            QWEN_LIKE.replace("(c.function.arguments | tojson)", "(c.function.arguments | tojson | upper)"),
            ToolCall("f", {"a": "x"}),
        ),
        (QWEN_LIKE.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"), None),
    ],
)
def test_calls_that_are_not_read_back_are_refused(template: str, call: ToolCall | None) -> None:
    renderer = Renderer.of(tokenizer(QWEN_LIKE))
    renderer.tokenizer = tokenizer(template)  # past the probe, as a template can be that has its moods
    made: tuple[Any, ...] = (call,) if call else (ToolCall("f", {}), ToolCall("g", {}))
    with pytest.raises(DataError, match=r"made:4: turn 2: its calls, .* are not read back as they are"):
        renderer.rows(calling(*made))


def test_a_syntax_that_is_no_json_is_let_be() -> None:
    renderer = Renderer.of(tokenizer(TAGGED))
    assert not renderer.markup.json_calls
    assert "<function=f><a>1</a>" in trained_texts(renderer, calling(ToolCall("f", {"a": 1})))[0]
