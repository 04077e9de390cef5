"""What turns say is used, refused by name or remarked on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.toys import ADD, WEATHER, weather_row
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.formats import convert
from toolkit.data.notes import Remarks, RowError

USER = {"role": "user", "content": "Weather in Oslo?"}
OSLO = ToolCall("get_weather", {"city": "Oslo"})
ROME = ToolCall("get_weather", {"city": "Rome"})
ARGUMENTS = {"city": "Oslo"}


def read(row: dict[str, Any], format: Any = "auto") -> tuple[Chat, Remarks]:
    remarks = Remarks()
    return convert(row, format, where="x.jsonl:1", source="x.jsonl", remarks=remarks), remarks


def turns(*messages: Any, **more: Any) -> tuple[Turn, ...]:
    return read({"messages": [USER, *messages], "tools": [WEATHER, ADD], **more})[0].turns


def said(*messages: Any, **more: Any) -> list[tuple[str, str, tuple[ToolCall, ...]]]:
    return [(turn.role, turn.content, turn.tool_calls) for turn in turns(*messages, **more)[1:]]


def refusal(*messages: Any, **more: Any) -> str:
    with pytest.raises(RowError) as caught:
        turns(*messages, **more)
    return str(caught.value)


def answer(content: str | None = "Yes.", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def calling(**call: Any) -> dict[str, Any]:
    return answer(None, tool_calls=[call])


@pytest.mark.parametrize("key", ["weight", "loss", "train", "training", "trainable"])
class TestWhatIsTrained:
    @pytest.mark.parametrize("value", [0, 0.0, False])
    def test_a_turn_that_says_so_is_not(self, key: str, value: Any) -> None:
        found = turns(answer("Bad.", **{key: value}), USER, answer("Good."))
        assert [turn.trained for turn in found if turn.role == "assistant"] == [False, True]

    @pytest.mark.parametrize("value", [1, 1.0, True, None])
    def test_others_are(self, key: str, value: Any) -> None:
        assert turns(answer(**{key: value}))[1].trained

    @pytest.mark.parametrize("value", [0.5, 2, -1, "0", "false", [0], {}])
    def test_nothing_between(self, key: str, value: Any) -> None:
        message = refusal(answer(**{key: value}))
        assert message.startswith(f"turn 2: {key} = ") and "wanted 0 or 1" in message

    def test_nothing_left_to_train_is_a_bad_row(self, key: str) -> None:
        assert "no assistant turn is to be trained" in refusal({**answer(), key: 0})

    def test_other_turns_are_never_trained(self, key: str) -> None:
        _, remarks = read({"messages": [{**USER, key: 1}, answer()]})
        assert remarks == {f"user turns: {key} is not used; only answers are trained": 1}
        assert read({"messages": [{**USER, key: 0}, answer()]})[1] == {}


def test_flags_that_contradict_or_mark_parts_are_refused() -> None:
    assert "weight and loss contradict" in refusal(answer(weight=1, loss=False))
    assert "train_detail says in a way that is not read" in refusal(answer(train_detail=[{"begin_offset": 0}]))
    assert "mask says in a way that is not read" in refusal(answer(mask=True))
    assert turns(answer(mask=False, train_detail=[]))[1].trained
    assert "weight = 0 of a whole row" in refusal(answer(), weight=0)


def test_a_turn_that_is_not_trained_is_not_joined_to_one_that_is() -> None:
    found = turns(answer("Bad.", weight=0), answer("Good.", weight=1))
    assert [(turn.content, turn.trained) for turn in found[1:]] == [("Bad.", False), ("Good.", True)]


def test_of_prompt_and_completion_only_the_completion_is_trained() -> None:
    bad = answer("Bad.")
    chat, _ = read({"prompt": [USER, bad, USER], "completion": [answer("Good."), USER, answer("Also.")]})
    assert [turn.trained for turn in chat.turns if turn.role == "assistant"] == [False, True, True]
    prefill, _ = read({"prompt": [USER, answer("So")], "completion": "it rains."})
    assert [(turn.content, turn.trained) for turn in prefill.turns[1:]] == [("So", False), ("it rains.", True)]


@pytest.mark.parametrize("role", ["function_call", "tool_call", "tool_calls", "function_calls"])
@pytest.mark.parametrize("result", ["observation", "tool", "function", "ipython", "tool_response", "function_response"])
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_roles_for_calls_and_results(role: str, result: str, keys: tuple[str, str]) -> None:
    written = json.dumps({"name": "get_weather", "arguments": ARGUMENTS})
    items = [("human", "Weather?"), (role, written), (result, "4 C"), ("gpt", "4 C.")]
    row = {"conversations": [dict(zip(keys, item, strict=True)) for item in items], "tools": json.dumps([WEATHER])}
    chat, remarks = read(row)
    assert [(turn.role, turn.content, turn.tool_calls) for turn in chat.turns] == [
        ("user", "Weather?", ()),
        ("assistant", "", (OSLO,)),
        ("tool", "4 C", ()),
        ("assistant", "4 C.", ()),
    ]
    assert remarks == {}


def test_roles_of_other_makers() -> None:
    for role in ("assistant", "gpt", "model", "bot", "ai", "Assistant"):
        assert turns({"role": role, "content": "Yes."})[1].role == "assistant"
    for role in ("user", "human", "Human"):
        assert turns({"role": role, "content": "And?"}, answer())[1].role == "user"
    assert refusal({"role": "narrator", "content": "Night."}) == "turn 2: unknown role narrator"
    assert refusal({"content": "Night."}) == "turn 2: no role: found content"


@pytest.mark.parametrize("key", ["arguments", "parameters", "args", "input", "params"])
@pytest.mark.parametrize("value", [ARGUMENTS, json.dumps(ARGUMENTS)])
def test_names_for_arguments(key: str, value: Any) -> None:
    assert said(calling(name="get_weather", **{key: value})) == [("assistant", "", (OSLO,))]
    assert said(calling(type="function", function={"name": "get_weather", key: value}))[0][2] == (OSLO,)
    assert said(calling(function={"name": "get_weather"}, **{key: value}))[0][2] == (OSLO,)


def test_arguments_under_a_name_that_is_not_known_are_never_dropped() -> None:
    assert "a call of get_weather has no arguments, but payload" in refusal(
        calling(name="get_weather", payload=ARGUMENTS)
    )
    assert "has no arguments, but city" in refusal(calling(name="get_weather", city="Oslo"))
    assert "arguments and input say different things" in refusal(
        calling(name="get_weather", arguments=ARGUMENTS, input={"city": "Rome"})
    )
    assert said(calling(name="get_weather"))[0][2] == (ToolCall("get_weather", {}),)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_names_for_thoughts(key: str) -> None:
    expected = "<think>\nwhy\n</think>\n\nSo."
    assert said(answer("So.", **{key: "why"})) == [("assistant", expected, ())]
    assert said(answer(expected, **{key: "why"})) == [("assistant", expected, ())], "said twice, kept once"
    assert said({**calling(name="get_weather", args=ARGUMENTS), key: "why"}) == [
        ("assistant", "<think>\nwhy\n</think>\n\n", (OSLO,))
    ]
    assert "a thought in its text and another beside it" in refusal(answer("<think>a</think>b", **{key: "c"}))
    assert "a thought that holds </think>" in refusal(answer("So.", **{key: "a </think> b"}))


def test_thoughts_are_kept_where_a_text_mentions_a_call() -> None:
    for content in ("What is <tool_call>?", "Say <tool_call>{x}</tool_call>, and <tools>[]</tools>."):
        row = {"messages": [{"role": "user", "content": content}, answer(content, reasoning_content="known")]}
        chat, _ = read(row)
        assert chat.meta["format"] == "messages"
        assert chat.turns[0].content == content
        assert chat.turns[1].content == f"<think>\nknown\n</think>\n\n{content}"


def test_calls_stand_on_sharegpt_turns_too() -> None:
    call = {"name": "get_weather", "arguments": ARGUMENTS}
    row = {
        "conversations": [
            {"from": "human", "value": "?"},
            {"from": "gpt", "value": "Let me see.", "tool_calls": [call]},
        ],
        "tools": [WEATHER],
    }
    assert read(row)[0].turns[1] == Turn("assistant", "Let me see.", (OSLO,))
    assert "calls in a user turn" in refusal({**USER, "tool_calls": [call]}, answer())


def test_a_system_text_beside_the_messages() -> None:
    for key in ("system", "system_prompt"):
        assert read({"messages": [USER, answer()], key: "Be terse."})[0].turns[0] == Turn("system", "Be terse.")
        there = [{"role": "system", "content": "Be kind."}, USER, answer()]
        with pytest.raises(RowError, match="turn 1 is a system turn, and system stands beside"):
            read({"messages": there, key: "Be terse."})
        assert len(read({"messages": there, key: "Be kind."})[0].turns) == 3
    blocks = [{"type": "text", "text": "Be "}, {"type": "text", "text": "terse."}]
    assert read({"messages": [USER, answer()], "system": blocks})[0].turns[0] == Turn("system", "Be terse.")


def result(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def both(*results: dict[str, Any], ids: tuple[str, str] = ("c1", "c2")) -> list[dict[str, Any]]:
    calls = [
        {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for id, call in zip(ids, (OSLO, ROME), strict=True)
    ]
    return [answer(None, tool_calls=calls), *results, answer("Done.")]


class TestResults:
    def test_they_follow_their_calls_by_id(self) -> None:
        found = turns(*both(result("31 C", tool_call_id="c2"), result("4 C", tool_call_id="c1")))
        assert found[2:4] == (Turn("tool", "4 C", name="get_weather"), Turn("tool", "31 C", name="get_weather"))

    def test_they_follow_over_what_is_said_between(self) -> None:
        calls, *rest = both(result("31 C", tool_call_id="c2"), result("4 C", tool_call_id="c1"))
        assert [turn.content for turn in turns(calls, answer("Wait."), *rest)[3:5]] == ["4 C", "31 C"]

    def test_an_id_that_no_call_has_is_refused(self) -> None:
        message = refusal(*both(result("31 C", tool_call_id="c2"), result("4 C", tool_call_id="c3")))
        assert message.startswith("turn 4: a result for the call c3, but no call before it has that id")

    def test_an_id_that_the_only_call_does_not_have_is_remarked_on(self) -> None:
        call = {"id": "c1", "name": "get_weather", "arguments": ARGUMENTS}
        row = {"messages": [USER, answer(None, tool_calls=[call]), result("4 C", tool_call_id="x"), answer()]}
        _, remarks = read({**row, "tools": [WEATHER]})
        assert remarks == {"a result names a call that there is not, and is taken for the only one before it": 1}

    def test_two_results_for_one_call_are_refused(self) -> None:
        assert "a second result for the call c1" in refusal(
            *both(result("31 C", tool_call_id="c1"), result("4 C", tool_call_id="c1"))
        )

    def test_more_results_than_calls_are_refused_without_ids_too(self) -> None:
        one = answer(None, tool_calls=[{"name": "get_weather", "arguments": ARGUMENTS}])
        for more in (result("7 C"), result("7 C", name="get_weather")):
            assert refusal(*both(result("31 C"), result("4 C"), more)).startswith("turn 5: 3 results for 2 calls")
            assert refusal(one, result("4 C"), more, answer()).startswith("turn 4: 2 results for 1 call")

    def test_ids_that_tell_nothing_apart_leave_the_order(self) -> None:
        messages = both(result("4 C", tool_call_id="c"), result("31 C", tool_call_id="c"), ids=("c", "c"))
        chat, remarks = read({"messages": [USER, *messages], "tools": [WEATHER]})
        assert [turn.content for turn in chat.turns[2:4]] == ["4 C", "31 C"]
        assert remarks == {"ids of calls and results don't tell them apart, so results are taken in their order": 1}

    def test_names_tell_where_ids_don_t(self) -> None:
        calls = [{"name": "get_weather", "arguments": ARGUMENTS}, {"name": "add", "arguments": {"a": 1, "b": 2}}]
        messages = [
            answer(None, tool_calls=calls),
            result("3", name="add"),
            result("4 C", name="get_weather"),
            answer(),
        ]
        assert [turn.name for turn in turns(*messages)[2:4]] == ["get_weather", "add"]


def test_blocks_of_anthropic() -> None:
    asked = answer(None)
    asked["content"] = [
        {"type": "thinking", "thinking": "Both.", "signature": "x"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t1", "name": "get_weather", "input": ARGUMENTS},
        {"type": "tool_use", "id": "t2", "name": "get_weather", "input": {"city": "Rome"}},
    ]
    results = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "31 C"}]},
            {"type": "tool_result", "tool_use_id": "t1", "content": "4 C"},
            {"type": "text", "text": "Go on."},
        ],
    }
    tools = [{"name": "get_weather", "description": "", "input_schema": WEATHER["function"]["parameters"]}]
    row = {"system": "Be brief.", "messages": [USER, asked, results, answer("4 and 31.")], "tools": tools}
    chat, remarks = read(row)
    assert chat.turns[2:] == (
        Turn("assistant", "<think>\nBoth.\n</think>\n\nLet me look.", (OSLO, ROME)),
        Turn("tool", "4 C", name="get_weather"),
        Turn("tool", "31 C", name="get_weather"),
        Turn("user", "Go on."),
        Turn("assistant", "4 and 31."),
    )
    assert set(remarks) == {"results that came in another order than their calls are put in that order, by id"}


def test_blocks_keep_their_order() -> None:
    parts = [
        {"type": "tool_use", "id": "t1", "name": "get_weather", "input": ARGUMENTS},
        {"type": "text", "text": "I asked."},
    ]
    assert said({"role": "assistant", "content": parts}) == [("assistant", "", (OSLO,)), ("assistant", "I asked.", ())]


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio", "document", "redacted_thinking"])
def test_parts_that_are_no_text_are_refused(kind: str) -> None:
    for role in ("user", "assistant"):
        message = refusal(
            {"role": role, "content": [{"type": "text", "text": "a"}, {"type": kind, kind: "x"}]}, answer()
        )
        assert f"turn 2: wanted text, got a part of type {kind}" in message


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
