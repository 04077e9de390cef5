"""Answers taken apart while they come: where a text is cut into pieces changes nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import ADD as ADD_TOOL
from toolkit.chats import ToolCall
from toolkit.inference.serve.calls import AnswerReader, arguments_text

CALL = '{"tool": "add", "arguments": {"a": 1}}'
MARKED = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
Read = tuple[str, str, list[tuple[str, str]]]


def read(pieces: list[str], call_format: str = "json", *, cut: bool = False, **settings: Any) -> Read:
    """(thought, content, calls) of an answer."""
    reader = AnswerReader(call_format, **{"with_calls": True, **settings})  # type: ignore[arg-type]
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + list(reader.finish(cut=cut))
    calls = [one["function"] for delta in deltas for one in delta.get("tool_calls", ())]
    thought, content = ("".join(delta.get(key, "") for delta in deltas) for key in ("reasoning_content", "content"))
    return thought, content, [(one["name"], one["arguments"]) for one in calls]


ADD = [("add", '{"a": 1}')]
EXPECTED: list[tuple[str, Read]] = [
    ("  Hello there.\n", ("", "Hello there.", [])),
    ("", ("", "", [])),
    (CALL, ("", "", ADD)),
    (MARKED, ("", "", ADD)),
    (f"Sure:\n\n{CALL}\n{CALL}\nDone.\n", ("", "Sure:\n\nDone.", ADD + ADD)),
    (f"```json\n{CALL}\n```", ("", "", ADD)),
    (f"<think>\nhm </thin{{\n</think>\n\n{MARKED}", ("hm </thin{", "", ADD)),
    ("<think>a</think> <think>b</think> c", ("ab", "c", [])),
    ("<think>cut short", ("cut short", "", [])),
    ("<thinly> veiled", ("", "<thinly> veiled", [])),
    ("a </think> in an answer", ("", "a </think> in an answer", [])),
    ("see [1] and [a link](x), if (a < b) {return {};}", ("", "see [1] and [a link](x), if (a < b) {return {};}", [])),
    ('{"sum": 3} is {"name": "Ada"}', ("", '{"sum": 3} is {"name": "Ada"}', [])),
    ('```python\nx = {"a": 1}\n``` says so', ("", '```python\nx = {"a": 1}\n``` says so', [])),
    ('{"tool": "add", "argum', ("", '{"tool": "add", "argum', [])),
    ("The mark is <tool_call> here.", ("", "The mark is <tool_call> here.", [])),
    ('{"tool": "add", "arguments": {"a": NaN}}', ("", '{"tool": "add", "arguments": {"a": NaN}}', [])),
]


@pytest.mark.parametrize(("text", "expected"), EXPECTED)
def test_what_an_answer_says(text: str, expected: Read) -> None:
    assert read([text]) == expected
    assert read(list(text)) == expected
    for size in (2, 3, 7):
        assert read([text[i : i + size] for i in range(0, len(text), size)]) == expected


CUT: list[tuple[str, str]] = [
    ('<tool_call>\n{"name": "add', ""),
    ("Sure.\n\n<tool_c", "Sure."),
    ('Sure. {"tool": "add", "argum', "Sure."),
    ('```json\n{"tool": "add", "argum', ""),
    ("<", ""),
    ("<thi", ""),
    ("if a <", "if a <"),
    ('```python\nx = {"b": 1, ', '```python\nx = {"b": 1,'),
    ('```json\n[{"name": "Ada", "age": 3', '```json\n[{"name": "Ada", "age": 3'),
    ("It is", "It is"),
]


@pytest.mark.parametrize(("text", "said"), CUT)
def test_half_a_mark_or_a_call_is_not_told(text: str, said: str) -> None:
    for pieces in ([text], list(text)):
        reader = AnswerReader("json", with_calls=True, tools=[ADD_TOOL])
        deltas = [delta for piece in pieces for delta in reader.feed(piece)] + list(reader.finish(cut=True))
        assert "".join(delta["content"] for delta in deltas) == said


def test_a_cut_thought_has_no_part_of_its_end() -> None:
    reader = AnswerReader("json", with_calls=True, thinking=True)
    assert [*reader.feed("hm.</thi"), *reader.finish(cut=True)] == [{"reasoning_content": "hm."}]


PARTS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "```", "[", "{", "}", "]", '"', "\\", "\n", " ", "a", CALL]
)


@settings(max_examples=150)
@given(st.lists(PARTS, max_size=14), st.lists(st.integers(0, 200), max_size=20), st.sampled_from(["native", "json"]))
def test_pieces_change_nothing(parts: list[str], cuts: list[int], call_format: str) -> None:
    text = "".join(parts)
    places = sorted({cut for cut in cuts if cut < len(text)} | {0, len(text)})
    pieces = [text[start:stop] for start, stop in pairwise(places)]
    whole = read([text], call_format)
    assert read(pieces, call_format) == whole
    if not whole[0] and not whole[2]:
        assert whole[1] == read([text], call_format, with_calls=False)[1] or "<think>" in text


def test_text_goes_out_as_soon_as_it_is_certain() -> None:
    reader = AnswerReader("json", with_calls=True)
    told = [list(reader.feed(piece)) for piece in ("Hel", "lo ", "you [", "1] ", '{"a"', ": 1}", " ok")]
    assert told == [
        [{"content": "Hel"}],
        [{"content": "lo"}],
        [{"content": " you"}],
        [{"content": " [1]"}],
        [],
        [{"content": ' {"a": 1}'}],
        [{"content": " ok"}],
    ]


def test_a_prompt_that_ends_within_a_thought() -> None:
    assert read(["it is", "</thi", "nk>\n\nHello"], thinking=True) == ("it is", "Hello", [])


def test_arguments_are_strict_json() -> None:
    assert arguments_text(ToolCall("a", {"b": float("nan")})) is None
    assert arguments_text(ToolCall("a", {"b": "é"})) == '{"b": "é"}'
    half = arguments_text(ToolCall("a", {"b": "\ud83d"}))
    assert half == '{"b": "\\ud83d"}' and json.loads(half) == {"b": "\ud83d"}


@pytest.mark.parametrize(
    ("written", "known"),
    [
        # from where on the text shows that it is a call
        ('{"arguments": {"a": 1, "name": "Bob"}, "name": "add"}', '{"arguments":'),
        (
            '{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}',
            '{"type": "function", "function": {"name":',
        ),
        ('```json\n{"name": "add", "arguments": {"a": 1}}\n```', '```json\n{"name":'),
    ],
)
def test_nothing_of_a_cut_value_that_holds_a_call_is_text(written: str, known: str) -> None:
    """A name among its arguments is not its own, and what closes it late is no text beside it."""
    for size in range(len(known), len(written)):
        for pieces in ([written[:size]], list(written[:size])):
            assert read(pieces, cut=True, tools=[ADD_TOOL])[:2] == ("", ""), written[:size]


def test_data_that_is_cut_stays_text() -> None:
    text = 'Here: {"parameters": {"a": 1}, "name": "Bob", "age": 3'
    assert read([text], cut=True, tools=[ADD_TOOL])[1] == text
