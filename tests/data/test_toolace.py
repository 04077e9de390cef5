"""ToolACE's rows: functions as a JSON list in the system text, calls in brackets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.chats import Chat, ToolCall
from toolkit.data.formats import convert
from toolkit.data.notes import Remarks, RowError
from toolkit.data.toolace import is_call, looks_like_call, read_bracket_calls

WEATHER = {
    "name": "get_weather",
    "description": "Weather [now].",
    "parameters": {"type": "dict", "properties": {"city": {"type": "string"}, "days": {"type": "int"}}},
    "required": None,
}
TRENDS = {
    "name": "Market Trends API",
    "description": "Trends.",
    "parameters": {"type": "dict", "properties": {"country": {"type": "string"}}, "required": ["country"]},
}
BEFORE = (
    "You are an expert in composing functions. You are given a question and a set of possible functions. \n"
    "Here is a list of functions in JSON format that you can invoke:\n"
)
AFTER = (
    ". \nShould you decide to return the function call(s). \nPut it in the format of "
    "[func1(params_name=params_value, params_name2=params_value2...), func2(params)]\n\n"
    "NO other text MUST be included. \n"
)
SYSTEM = BEFORE + json.dumps([WEATHER, TRENDS]) + AFTER


def row(*said: tuple[str, str], system: str = SYSTEM, **more: Any) -> dict[str, Any]:
    return {"system": system, "conversations": [{"from": who, "value": text} for who, text in said], **more}


def read(value: dict[str, Any]) -> tuple[Chat, Remarks]:
    remarks = Remarks()
    return convert(value, "auto", where="x.json:1", source="x", remarks=remarks), remarks


def test_calls_results_and_answers() -> None:
    results = [{"name": "get_weather", "results": {"sky": "rain"}}, {"name": "Market Trends API", "results": "up"}]
    chat, remarks = read(
        row(
            ("user", "Both?"),
            ("assistant", "[get_weather(city=\"Oslo\", days=2), Market Trends API(country='us')]"),
            ("tool", json.dumps(results)),
            ("assistant", "Rain, and up [as ever]."),
        )
    )
    assert chat.meta == {"format": "toolace"}
    assert [(turn.role, turn.content, turn.tool_calls) for turn in chat.turns] == [
        ("user", "Both?", ()),
        (
            "assistant",
            "",
            (ToolCall("get_weather", {"city": "Oslo", "days": 2}), ToolCall("Market Trends API", {"country": "us"})),
        ),
        ("tool", '{"sky": "rain"}', ()),
        ("tool", "up", ()),
        ("assistant", "Rain, and up [as ever].", ()),
    ]
    assert [turn.name for turn in chat.turns[2:4]] == ["get_weather", "Market Trends API"]
    schema = chat.tools[0]["function"]["parameters"]
    assert schema == {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    assert set(remarks) == {
        "system texts: the functions and the words about calling them are read out of the text",
        "tool schemas: type dict is read as object",
        "tool schemas: type int is read as integer",
    }


def test_words_of_its_own_stay_in_the_system_text() -> None:
    chat, _ = read(row(("user", "?"), ("assistant", "Which city?"), system="Be kind. " + SYSTEM + "Today is Monday."))
    assert chat.turns[0].content == "Be kind.\n\nToday is Monday." and len(chat.tools) == 2
    listed = row(
        ("user", "?"), ("assistant", "[get_weather(city='Oslo')]"), system=f"Tools: {json.dumps([WEATHER])} Go."
    )
    chat, _ = read(listed)
    assert chat.meta == {"format": "toolace"} and chat.turns[0].content == "Tools:\n\nGo."


def test_a_list_that_no_call_uses_is_only_a_text() -> None:
    chat, remarks = read(row(("user", "?"), ("assistant", "Which city?"), system=f"We have {json.dumps([WEATHER])}."))
    assert chat.meta == {"format": "sharegpt"} and chat.tools == ()
    assert remarks == {"looks like a tool chat, but no tools were read: the system text lists functions": 1}
    people = row(("user", "?"), ("assistant", "Ann."), system='Known: [{"name": "Ann", "age": 3}]')
    assert read(people)[1] == {}


def test_results_that_don_t_fit_stay_one_text() -> None:
    two = '[get_weather(city="Oslo"), get_weather(city="Rome")]'
    for result in ("rain and sun", '[{"sky": "rain"}]', "[1, 2]", "NaN"):
        chat, _ = read(row(("user", "?"), ("assistant", two), ("tool", result), ("assistant", "So.")))
        assert [turn.content for turn in chat.turns if turn.role == "tool"] == [result]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["get_weather", "Market Trends API", "a.b/c-d", "f"])
KEYS = st.from_regex(r"[a-z_][\w -]{0,6}\w", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=3), st.booleans())
def test_calls_read_as_they_were_written(calls: list[tuple[str, dict[str, Any]]], python: bool) -> None:
    def value(one: Any) -> str:
        return repr(one) if python else json.dumps(one)

    inside = [f"{name}({', '.join(f'{key}={value(one)}' for key, one in made.items())})" for name, made in calls]
    text = f"[{', '.join(inside)}]"
    names = ["get_weather", "Market Trends API", "a.b/c-d", "f"]
    assert is_call(text, names)
    assert [(call.name, call.arguments) for call in read_bracket_calls(text, names, "x")] == calls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[get_weather(city=Oslo)]", "a name without quotes"),
        ('[get_weather("Oslo")]', "wanted key=value"),
        ('[get_weather(city="Oslo", city="Rome")]', "the argument city stands twice"),
        ('[get_weather(city="Oslo"]', "wanted calls as"),
        ('[get_weather(city="Oslo") get_weather(city="Rome")]', "wanted calls as"),
        ('[get_weather(city="Oslo")], sure]', "wanted calls as"),
        ('[get_wether(city="Oslo")]', "turn 2: calls unknown tool get_wether, did you mean get_weather"),
        ("[get_weather(city={1})]", "a set, which JSON can't say"),
        ('[get_weather(city="say "hi"")]', "not JSON|wanted calls"),
        ("[get_weather(city='it''s')]", "two strings side by side"),
        ("[get_weather(city=1e999)]", "beyond all numbers"),
        ("[get_weather(" + "a=[" * 300 + "])]", "wanted calls as"),
    ],
)
def test_bad_calls(text: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(row(("user", "?"), ("assistant", text)))


def test_what_looks_like_calls() -> None:
    for text in ("[f(a=1)]", "[Market Trends API(country='us'), f()]", "[ f( ) ]"):
        assert looks_like_call(text), text
    for text in ("[see the notes (p. 3)]", "[1]", "[f(x)] and more", "f(a=1)", '["f(a=1)"]', "[(a=1)]"):
        assert not looks_like_call(text), text
