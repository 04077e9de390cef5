"""Calls in the forms of models' own templates: written by a template, read back, on every type of value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.data.call_templates import CALLS, MISTRAL, OPEN_CALLS, THINKING, tokenizer
from tests.data.toys import ADD, WEATHER, tool, weather_chat
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.call_forms import FORMS, form_in
from toolkit.data.call_parsing import parse
from toolkit.data.render import Renderer
from toolkit.errors import DataError

RENDERERS = {name: Renderer(tokenizer(name)) for name in CALLS}
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
PLAIN = st.text("abc é", min_size=1, max_size=8).map(str.strip).filter(bool)
NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=6,
)
PIECES = [
    *"[](){}<>='\",:ab1 \n",
    *(form.opener for form in FORMS.values()),
    *("call:f{", "<function=f>", "<parameter=a>", "</parameter>", "</function>", "</tool_call>", "f(a=", "[ARGS]"),
    *("<escape>", "</think>", "<think>"),
]
ANY = tool("any", "Takes anything.", **{key: {} for key in "abc"}, text={"type": "string"})


def written(name: str, *calls: ToolCall) -> str:
    """What the template makes of a turn with calls."""
    renderer = RENDERERS[name]
    (row,) = renderer.rows(Chat((Turn("user", "Go"), Turn("assistant", "", calls)), (ANY,), where="made:1"))
    ((start, stop),) = row.spans
    return row.text[start:stop].removesuffix(renderer.markup.end)


def same(found: tuple[ToolCall, ...], calls: tuple[ToolCall, ...]) -> bool:
    return [json.dumps([c.name, c.arguments], sort_keys=True) for c in found] == [
        json.dumps([c.name, c.arguments], sort_keys=True) for c in calls
    ]


@pytest.mark.parametrize("name", CALLS)
def test_the_form_is_found_by_what_the_template_writes(name: str) -> None:
    renderer = RENDERERS[name]
    assert renderer.call_form == name.split()[0] and renderer.markup.tools
    assert form_in(renderer.tokenizer.chat_template) == renderer.call_form
    assert renderer.markup.call_ids == (name == "mistral")


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=25, deadline=None)
@given(arguments=st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), text=PLAIN)
@example(arguments={"a": True, "b": None, "c": -1.5e-7}, text="x")
@example(arguments={"a": [], "b": {}, "c": [[1, "a b"], {"p": [None, False]}]}, text="x")
def test_every_type_of_value_comes_back(name: str, arguments: dict[str, Any], text: str) -> None:
    calls = [ToolCall("any", {**arguments, "text": text})]
    calls += [] if name == "llama" else [ToolCall("other", {"text": text})]
    parsed = parse(written(name, *calls), name.split()[0], [ANY])
    assert same(parsed.calls, tuple(calls)) and parsed.in_format and parsed.valid_json and not parsed.text


@pytest.mark.parametrize("name", CALLS)
def test_no_form_refuses_a_type_of_value_or_a_second_call(name: str) -> None:
    plain = {"a": True, "b": None, "c": -1.5e-7, "text": "Ünï code"}
    for arguments in (plain, {"a": [1, [2.5, None]], "b": {"p": [False], "q": "x y"}, "c": [], "text": "3"}):
        calls = (ToolCall("any", arguments), ToolCall("other", {"text": "x"}))[: 1 if name == "llama" else 2]
        parsed = parse(written(name, *calls), name.split()[0], [ANY])
        assert same(parsed.calls, calls) and parsed.in_format and parsed.valid_json and not parsed.text


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
@example(text="What's up, you're (here)?")
@example(text='"quoted" and {braced}, [listed]')
@example(text="3")
@example(text="True")
def test_any_text_comes_back_or_is_refused(name: str, text: str) -> None:
    calls = (ToolCall("any", {"text": text, "a": 1}),)
    try:
        made = written(name, *calls)
    except DataError:
        assert name in ("lfm", "gemma", "xml"), text  # which escape nothing
        return
    assert same(parse(made, name.split()[0], [ANY]).calls, calls)


def test_a_text_with_quotes_in_it_is_read_though_nothing_is_escaped() -> None:
    call = ToolCall("any", {"text": "What's up, you're (here)?", "a": 2})
    assert same(parse(written("lfm", call), "lfm").calls, (call,))


def test_the_schema_tells_a_text_from_a_number() -> None:
    made = written("xml", ToolCall("any", {"text": "3", "a": 3}))
    assert parse(made, "xml", [ANY]).calls == (ToolCall("any", {"text": "3", "a": 3}),)
    assert parse(made, "xml").calls == (ToolCall("any", {"text": 3, "a": 3}),)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_no_text_is_too_much(form: str, text: str) -> None:
    parsed = parse(text, form, [ANY])
    assert parsed.in_format <= parsed.has_call and (not parsed.in_format or parsed.calls)


@pytest.mark.parametrize(
    ("form", "text", "calls", "problem"),
    [
        ("mistral", 'Well. [TOOL_CALLS]f[CALL_ID]a12345678[ARGS]{"a": 1}', 1, ""),
        ("mistral", '[TOOL_CALLS][{"name": "f"', 0, "after [TOOL_CALLS]: not JSON"),
        ("mistral", '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', 1, "a call without [TOOL_CALLS]"),
        ("tool_call", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', 1, ""),
        ("lfm", "<|tool_call_start|>[f(a=1, b=[True, None])]<|tool_call_end|>Done.", 1, ""),
        ("lfm", "<|tool_call_start|>[f(a=1<|tool_call_end|>", 0, "wanted , or ) after a value"),
        ("lfm", "<|tool_call_start|>[f(a=__import__('os'))]<|tool_call_end|>", 0, "neither JSON nor Python"),
        ("olmo", '<function_calls>f(a="x")\ng()</function_calls>', 2, ""),
        ("xml", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>", 0, "a parameter has no </parameter>"),
        ("gemma", "<start_function_call>call:f{a:<escape>x, y<escape>,b:[1,2]}<end_function_call>", 1, ""),
        ("gemma", "<start_function_call>call:f{a:<escape>x}", 0, "a text is not closed"),
        ("llama", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', 1, ""),
        ("llama", '{"name": "f", "arguments": {"a": 1}}', 1, 'keys other than "name" and "parameters"'),
    ],
)
def test_what_is_tolerated_is_said(form: str, text: str, calls: int, problem: str) -> None:
    parsed = parse(text, form)
    assert len(parsed.calls) == calls and parsed.has_call
    assert problem in " ".join(parsed.problems) and parsed.in_format == (not problem)


def test_thoughts_before_marks_call_nothing() -> None:
    text = 'I may use [TOOL_CALLS]f[ARGS]{} here.\n</think>\n\n[TOOL_CALLS]g[ARGS]{"a": 1}'
    assert parse(text, "mistral").calls == (ToolCall("g", {"a": 1}),)
    assert parse("<think>[TOOL_CALLS]f[ARGS]{}</think>No.", "mistral").calls == ()
    assert parse("[TOOL_CALLS]g[ARGS]{}", "native").calls == (ToolCall("g", {}),)


@pytest.mark.parametrize(("template", "form"), [(MISTRAL, "mistral"), (THINKING, "xml")])
def test_a_template_without_a_fixed_header_trains_every_answer_behind_its_prompt(template: str, form: str) -> None:
    renderer, chat = Renderer(tokenizer(template)), weather_chat()
    assert renderer.markup.by_turns and renderer.call_form == form
    rows = renderer.rows(chat)
    assert len(rows) == 3  # as the template writes earlier turns otherwise once more follow
    for row, index in zip(rows, (2, 4, 6), strict=True):
        ((start, stop),) = row.spans
        assert row.text[:start] == renderer.prompt(chat, index) and row.turn == index
        encoded = renderer.encode(row)
        assert encoded.trained[-1] and encoded.input_ids[-1] == renderer.markup.end_id
        assert renderer.tokenizer.decode(encoded.input_ids[encoded.trained]) == row.text[start:stop]
    called = rows[0].text[rows[0].spans[0][0] :].removesuffix(renderer.markup.end)
    assert parse(called, form, chat.tools).calls == (ToolCall("get_weather", {"city": "Oslo"}),)
    assert "Be brief." in rows[0].text or form == "xml"


def test_where_every_prompt_begins_the_chat_it_is_one_row() -> None:
    renderer = Renderer(tokenizer(MISTRAL))
    turns = (Turn("user", "Hello?"), Turn("assistant", "Hi."), Turn("user", "Well?"), Turn("assistant", "No."))
    (row,) = renderer.rows(Chat(turns, where="made:1"))
    assert [row.text[start:stop] for start, stop in row.spans] == ["Hi.<|im_end|>", "No.<|im_end|>"]
    (row,) = renderer.rows(Chat((*turns[:1], Turn("assistant", "Hi.", trained=False), *turns[2:]), where="made:1"))
    assert [row.text[start:stop] for start, stop in row.spans] == ["No.<|im_end|>"]


def test_calls_that_are_closed_by_another_token_are_trained_and_stopped_at_it() -> None:
    renderer, chat = Renderer(tokenizer(OPEN_CALLS)), weather_chat()
    markup = renderer.markup
    assert (markup.end, markup.call_end, renderer.call_form) == ("<|im_end|>", "<start_function_response>", "gemma")
    assert renderer.end_token_ids == [markup.end_id, markup.call_end_id]
    (row,) = renderer.rows(chat)
    assert [row.text[start:stop] for start, stop in row.spans] == [
        "<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call><start_function_response>",
        "It rains in Oslo.<|im_end|>",
        "You are welcome.<|im_end|>",
    ]
    for (start, _), index in zip(row.spans, (2, 4, 6), strict=True):
        assert row.text[:start] == renderer.prompt(chat, index)
    encoded = renderer.encode(row)
    last = encoded.trained & ~np.append(encoded.trained[1:], False)
    assert encoded.input_ids[last].tolist() == [markup.call_end_id, markup.end_id, markup.end_id]
    open_ended = Chat((*chat.turns[:3], *chat.turns[5:]), chat.tools, where="made:1")
    with pytest.raises(DataError, match=r"made:1: turn 3: its calls have no results"):
        renderer.rows(open_ended)
    alone = Chat(chat.turns[:3], chat.tools, where="made:1")
    assert renderer.rows(alone)[0].text.endswith("<end_function_call><start_function_response>")
    hermes = Renderer.of(tokenizer(OPEN_CALLS), "hermes")
    assert not hermes.markup.call_end and len(hermes.rows(chat)[0].spans) == 3


def test_calls_of_one_turn_keep_their_ids() -> None:
    renderer = Renderer(tokenizer(MISTRAL))
    calls = (ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": 3, "b": 4}))
    turns = (
        Turn("user", "Add."),
        Turn("assistant", "", calls),
        Turn("tool", "3", name="add"),
        Turn("tool", "7", name="add"),
    )
    text = renderer.rows(Chat((*turns, Turn("assistant", "3, 7")), (ADD, WEATHER), where="made:1"))[-1].text
    assert text.index('"id": "000000001"') < text.index('"id": "000000002"') < text.index('"call_id": "000000001"')
    assert text.endswith('"call_id": "000000002"}[/TOOL_RESULTS]3, 7<|im_end|>')
