"""What a row says that training does not use is remarked on, and what can't be read says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.told import ARGUMENTS, USER, answer, read, refusal, result, turns
from tests.data.toys import ADD, WEATHER, weather_row
from toolkit.data.notes import RowError


def test_every_key_that_is_not_used_is_remarked_on() -> None:
    row = weather_row(id=7, license="MIT", empty=None)
    row["messages"][1] |= {"name": "Ann", "cache_control": {"type": "ephemeral"}, "audio": None}
    row["messages"][2]["tool_calls"][0] |= {"index": 0, "status": "done"}
    row["messages"][4]["annotations"] = [1]
    row["tools"] = [{**WEATHER, "kind": "x"}, {"function": {**ADD["function"], "strict": True, "returns": "int"}}]
    _, remarks = read(row)
    assert remarks == {
        "rows: key id is not used": 1,
        "rows: key license is not used": 1,
        "user turns: key name is not used": 1,
        "user turns: key cache_control is not used": 1,
        "keys that are null in turns are read as absent": 1,
        "assistant turns: key annotations is not used": 1,
        "calls: key status is not used": 1,
        "tools, beside function: key kind is not used": 1,
        "tools: key strict is not used": 1,
        "tools: key returns is not used": 1,
    }


def test_nothing_is_remarked_on_where_all_is_used() -> None:
    assert read(weather_row(kind="single"))[1] == {}


@pytest.mark.parametrize(
    ("row", "remark"),
    [
        ({"messages": [USER, answer("a"), answer("b")]}, "assistant turns that follow each other are joined into one"),
        ({"messages": [USER, answer(), USER]}, "turns after the last answer are left out"),
        ({"messages": [{"role": "system", "content": " "}, USER, answer()]}, "empty system turns are left out"),
        (
            {"messages": [USER, answer('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')]},
            "looks like a tool call, but no tools were read: an assistant's text holds <tool_call> and an object",
        ),
        (
            {"messages": [USER, answer('<functioncall> {"name": "f", "arguments": {}}')]},
            "looks like a tool call, but no tools were read: an assistant's text holds <functioncall> {",
        ),
        (
            {"messages": [USER, answer('{"name": "f", "arguments": {"a": 1}}')]},
            "looks like a tool call, but no tools were read: an assistant's text is the JSON of a call",
        ),
        (
            {"messages": [USER, answer('[get_weather(city="Oslo")]')]},
            "looks like a tool call, but no tools were read: an assistant's text is a call in brackets",
        ),
        (
            {"messages": [USER, answer('{"name": "get_weather", "arguments": {}}')], "tools": [WEATHER]},
            "looks like a tool call, but it was read as text: an assistant's text is the JSON of a call",
        ),
        (
            {"messages": [{"role": "system", "content": 'Use [{"name": "f", "parameters": {}}].'}, USER, answer()]},
            "looks like a tool chat, but no tools were read: the system text lists functions",
        ),
    ],
)
def test_what_is_left_out_or_looks_unread_is_remarked_on(row: dict[str, Any], remark: str) -> None:
    assert read(row)[1] == {remark: 1}


def test_talk_about_calls_raises_no_alarm() -> None:
    for text in (
        "It writes <tool_call> first.",
        "Use [1] and [f(x)].",
        '{"name": "Ann", "age": 3}',
        "[see the notes (p. 3)]",
    ):
        assert read({"messages": [USER, answer(text)]})[1] == {}, text


def offering(parameters: Any) -> dict[str, Any]:
    return {"messages": [USER, answer()], "tools": [{"name": "f", "parameters": parameters}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [{"role": "user", "text_": "?"}, answer()]}, "turn 1: no content: found role, text_"),
        ({"messages": [USER, answer()], "conversations": [USER]}, "messages and conversations say different things"),
        ({"messages": [USER, answer(content="x", value="y")]}, "content and value say different things"),
        ({"prompt": "?", "chosen": "a", "rejected": "b"}, r"a preference \(chosen and rejected\)"),
        ({"text": "User: hi"}, "can't be parted into turns"),
        ({"messages": [USER, answer(None, tool_calls=[{"name": "f", "arguments": '{"a": NaN}'}])]}, "NaN is no number"),
        ({"messages": [USER, answer(None, tool_calls=["f"])]}, "call: not JSON"),
        ({"messages": [USER, answer(None, tool_calls=[5])]}, "a call is no object: 5"),
        ({"messages": [USER, {"role": "function_call", "content": "weather"}]}, "call: not JSON|not JSON"),
        ({"messages": [USER, {"role": "function_call", "content": ""}]}, "a call without a call in it"),
        (
            {"messages": [USER, answer()], "tools": [{"name": "f", "parameters": {"type": "text"}}]},
            "are no JSON schema",
        ),
        ({"messages": [USER, answer()], "tools": [{"name": "f", "parameters": {"required": 5}}]}, "are no JSON schema"),
        (
            {"messages": [USER, answer()], "tools": [{"name": "f", "parameters": [1]}]},
            "wanted a JSON schema, got a list",
        ),
    ],
)
def test_rows_that_cant_be_read_say_why(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(row)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        *(
            (key, "tool_calls")
            for key in ("tool_call", "toolCalls", "tool-calls", "tools_calls", "tool_cals", "tool_use")
        ),
        *(("function_calls", "tool_calls"), ("functionCalls", "tool_calls"), ("toolInvocations", "tool_calls")),
    ],
)
def test_calls_under_nearly_the_right_name_are_not_lost(key: str, near: str) -> None:
    calls = [{"name": "get_weather", "arguments": ARGUMENTS}]
    for content in ("Let me look.", None):
        told = refusal(answer(content, **{key: calls}), result("4 C"), answer())
        assert told == f"turn 2: key {key} is not read, did you mean {near}?"
    one = refusal(answer("So.", functionCall=calls[0]), result("4 C"), answer())
    assert one == "turn 2: key functionCall is not read, did you mean function_call?"
    nothings: tuple[Any, ...] = (None, "", [], {})
    for nothing in nothings:
        turns(answer("So.", **{key: nothing}))
    turns(answer("So.", tool_call_id="x"))


@pytest.mark.parametrize("unseen", ["\x00", "\x7f", "\x9b", "\u202e", "\u200b", "\ufeff", "\u2028", "\ue000"])
def test_a_tool_s_name_is_what_is_seen_of_it(unseen: str) -> None:
    named = {**WEATHER, "function": {**WEATHER["function"], "name": f"get{unseen}weather"}}
    with pytest.raises(RowError, match=rf"holds a control character or one that is not seen \(U\+{ord(unseen):04X}\)"):
        read({"messages": [USER, answer()], "tools": [named]})
    plain = {**WEATHER, "function": {**WEATHER["function"], "name": "météo_天気"}}
    read({"messages": [USER, answer()], "tools": [plain]})


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"name": "get_weather", "arguments": json.dumps(json.dumps(ARGUMENTS))}, "JSON text within JSON text"),
        ({"name": 5, "arguments": {}}, "a call's name: wanted text that is not empty, got 5"),
        ({"name": "", "arguments": {}}, 'a call\'s name: wanted text that is not empty, got ""'),
        ({"arguments": {}}, "a call needs a name: found arguments"),
    ],
)
def test_what_is_wrong_with_a_call_is_shown_as_it_stands(call: dict[str, Any], told: str) -> None:
    assert told in refusal(answer(None, tool_calls=[call]), result("4 C"), answer())


def test_a_number_in_quotes_is_shown_in_quotes() -> None:
    assert 'weight = "0", wanted 0 or 1' in refusal(answer("So.", weight="0"))


def test_a_misspelt_key_of_a_row_has_the_nearest() -> None:
    with pytest.raises(
        RowError, match=r"no known format: found mesages \(did you mean messages by mesages\?\); wanted"
    ):
        read({"mesages": [USER, answer()]})


CALLED = {"function": {"name": "get_weather", "arguments": ARGUMENTS}}
CUT = "white space at the beginning of an answer is not trained"


@pytest.mark.parametrize("content", ["    return 1", "\treturn 1", "\n\n  return 1", " Yes.", "\u3000Yes."])
def test_white_space_that_an_answer_loses_is_counted(content: str) -> None:
    marked = {
        "content": f"{content}\n<tool_call>{json.dumps({'name': 'get_weather', 'arguments': ARGUMENTS})}</tool_call>"
    }
    for row in (
        {"messages": [USER, answer("Fine."), USER, answer(content)]},
        {"prompt": "?", "completion": content},
        {"instruction": "?", "output": content},
        {"messages": [USER, answer(**marked)], "tools": [WEATHER]},
    ):
        assert read(row)[1][CUT] == 1, row


@pytest.mark.parametrize("content", ["Yes.", "\n\nYes.", "\r\nYes.", " \n\t\nYes.\n  No.", " <think>Hm.</think>Yes."])
def test_blank_lines_before_an_answer_are_not_worth_a_word(content: str) -> None:
    assert CUT not in read({"messages": [USER, answer(content)]})[1]
    assert CUT not in read({"messages": [USER, answer("  No.", weight=0), USER, answer(content)]})[1]
    assert CUT not in read({"messages": [USER, answer("  ", tool_calls=[CALLED])], "tools": [WEATHER]})[1]


@pytest.mark.parametrize("content", ["", " \n\t"])
def test_a_question_that_is_empty_is_counted(content: str) -> None:
    empty = {"role": "user", "content": content}
    for row in (
        {"messages": [empty, answer()]},
        {"messages": [USER, answer(), {**empty, "content": [{"type": "text", "text": content}]}, answer()]},
        {"conversations": [{"from": "human", "value": content}, {"from": "gpt", "value": "Yes."}]},
        {"prompt": content, "completion": "Yes."},
        {"instruction": content, "output": "Yes."},
        {"instruction": "?", "output": "Yes.", "history": [[content, "No."]]},
    ):
        assert read(row)[1] == {"a user turn is empty": 1}, row
    assert read({"user": content, "assistant": "Yes."}, "columns")[1] == {"a user turn is empty": 1}
    assert not read({"instruction": content, "input": "2 and 2", "output": "4"})[1]
