"""What turns say is used or refused by name: what is trained, roles, calls, thoughts and results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.told import ARGUMENTS, OSLO, ROME, USER, answer, calling, read, refusal, result, said, turns
from tests.data.toys import WEATHER
from toolkit.chats import ToolCall, Turn
from toolkit.data.notes import RowError


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
