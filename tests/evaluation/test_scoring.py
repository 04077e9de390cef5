"""Each measure with planted right and wrong answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.chats import BUILTIN, TEST_SET, Chat, ToolCall, Turn
from toolkit.data.call_parsing import parse
from toolkit.data.calls import write_calls
from toolkit.evaluation.same_json import same_but_case, same_json
from toolkit.evaluation.scoring import Score, expectation, kind_of, schema_valid, score
from toolkit.evaluation.wanted import same_calls


def tool(name: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = (
    tool("get_weather", {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}, ("city",)),
    tool("delete_file", {"path": {"type": "string"}}, ("path",)),
    tool("list_lamps", {}),
)
OSLO = ToolCall("get_weather", {"city": "Oslo", "days": 3})
ROME = ToolCall("get_weather", {"city": "Rome", "days": 3})
LAMPS = ToolCall("list_lamps", {})


def chat(kind: str, *calls: ToolCall, **meta: Any) -> Chat:
    return Chat((Turn("user", "Do it."), Turn("assistant", "" if calls else "Text.", calls)), TOOLS, kind, meta=meta)


def scored(asked: Chat, text: str) -> Score:
    return score(asked, 1, parse(text, "json"))


def said(*calls: ToolCall) -> str:
    return write_calls(calls, "json")


def test_the_right_call() -> None:
    assert scored(chat("single", OSLO), said(OSLO)) == Score(
        correct=True,
        has_call=True,
        valid_json=True,
        in_format=True,
        schema_valid=True,
        invented_tool=False,
        name_correct=True,
        argument_recall=1.0,
        argument_precision=1.0,
        exact=True,
        exact_but_case=True,
        over_refusal=False,
    )


@pytest.mark.parametrize(
    ("calls", "correct"),
    [
        ([ROME, OSLO], True),
        ([OSLO, ROME], True),
        ([OSLO], False),
        ([OSLO, OSLO], False),
        ([OSLO, ROME, ROME], False),
        ([OSLO, ROME, LAMPS], False),
    ],
)
def test_parallel_calls_are_exact_in_any_order_and_only_when_complete(calls: list[ToolCall], correct: bool) -> None:
    assert scored(chat("parallel", OSLO, ROME), said(*calls)).correct == correct


def test_a_wrong_argument() -> None:
    result = scored(chat("single", OSLO), said(ToolCall("get_weather", {"city": "Bergen", "days": 3})))
    assert (result.correct, result.name_correct, result.schema_valid) == (False, True, True)
    assert (result.argument_recall, result.argument_precision) == (0.5, 0.5)


def test_the_ends_of_a_built_in_distance_may_be_exchanged() -> None:
    """As the crow flies it is as far from Munich to Perth as from Perth to Munich; a drive has a direction."""
    ends = {"origin": "Munich", "destination": "Perth"}
    other = {"origin": "Perth", "destination": "Munich"}
    tools = tuple(tool(name, {key: {"type": "string"} for key in ends}) for name in ("straight_distance", "plan_route"))

    def asked(name: str, source: str) -> Chat:
        turns = (Turn("user", "how far?"), Turn("assistant", "", (ToolCall(name, ends),)))
        return Chat(turns, tools, "single", source=source)

    for source in (BUILTIN, TEST_SET):
        found = scored(asked("straight_distance", source), said(ToolCall("straight_distance", other)))
        assert found.exact and found.argument_recall == found.argument_precision == 1
    twice = ToolCall("straight_distance", {"origin": "Perth", "destination": "Perth"})
    assert not scored(asked("straight_distance", BUILTIN), said(twice)).exact
    assert not scored(asked("plan_route", BUILTIN), said(ToolCall("plan_route", other))).exact
    assert not scored(asked("straight_distance", "mine.jsonl"), said(ToolCall("straight_distance", other))).exact
    loose = {"origin": "perth", "destination": " Munich"}
    assert scored(asked("straight_distance", BUILTIN), said(ToolCall("straight_distance", loose))).exact_but_case
    assert not scored(asked("plan_route", BUILTIN), said(ToolCall("plan_route", loose))).exact_but_case
    assert not same_calls([ToolCall("straight_distance", ends)], [ToolCall("straight_distance", other)])


@pytest.mark.parametrize(
    ("made", "same"),
    [
        ({"query": "Macchiato"}, True),
        ({"query": " \tMACCHIATO\n"}, True),
        ({"query": "Macchiatos"}, False),
        ({"query": "Macchi ato"}, False),
        ({"people": ["john", {"city": "NEW york"}]}, True),
        ({"people": ["john", {"city": "Newyork"}]}, False),
        ({"people": ["john", {"City": "New York"}]}, False),
        ({"people": [{"city": "New York"}, "John"]}, False),
        ({"days": 3.0}, True),
        ({"days": 4}, False),
        ({"days": "3"}, False),
        ({"hot": "true"}, False),
        ({"hot": 1}, False),
        ({"note": ""}, False),
        ({"note": None, "other": None}, False),
    ],
)
def test_case_and_outer_spaces_of_texts_at_any_depth(made: dict[str, Any], same: bool) -> None:
    arguments = {"query": "Macchiato ", "people": ["John", {"city": "New  York"}], "days": 3, "hot": True, "note": None}
    result = scored(chat("single", ToolCall("find", arguments)), said(ToolCall("find", {**arguments, **made})))
    assert result.exact_but_case is same
    assert result.exact == result.correct == (made == {"days": 3.0})


def test_names_have_a_case() -> None:
    for other in (ToolCall("Get_Weather", OSLO.arguments), ToolCall("get_weather", {"City": "Oslo", "days": 3})):
        assert scored(chat("single", OSLO), said(other)).exact_but_case is False


def test_what_else_makes_calls_exact_holds_but_for_case() -> None:
    oslo, rome = (
        replace(one, arguments={**one.arguments, "city": name}) for one, name in ((OSLO, "OSLO"), (ROME, "rome "))
    )
    assert scored(chat("parallel", OSLO, ROME), said(rome, oslo)).exact_but_case
    assert not scored(chat("parallel", OSLO, ROME), said(oslo, OSLO)).exact_but_case
    listed = [{"name": "get_weather", "arguments": ROME.arguments}]
    assert scored(chat("single", OSLO, alternatives={"1": [listed]}), said(rome)).exact_but_case
    broken = scored(chat("single", OSLO), '{"tool": "get_weather", "arguments": {"city": "oslo", "days": 3,}}')
    assert broken.valid_json is broken.exact_but_case is False
    assert scored(chat("single", OSLO), "It is sunny.").exact_but_case is False
    assert scored(chat("clarify"), "Which city?").exact_but_case is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aA\u00df\u0130 \t\u00a0", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "A", " a"]), inner),
)
ARGUMENTS = st.dictionaries(st.sampled_from(["x", "X"]), JSON)
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["f", "F"]), ARGUMENTS), min_size=1, max_size=3)


@given(a=JSON, b=JSON)
def test_the_same_is_the_same_but_for_case(a: Any, b: Any) -> None:
    assert same_but_case(a, a) and same_but_case(a, b) == same_but_case(b, a)
    assert same_but_case(a, b) or not same_json(a, b)


@given(expected=CALLS, made=CALLS, source=st.sampled_from([BUILTIN, "mine.jsonl"]), data=st.data())
def test_exact_calls_are_exact_but_for_case(
    expected: list[ToolCall], made: list[ToolCall], source: str, data: st.DataObject
) -> None:
    asked = replace(chat("parallel", *expected), source=source)
    right = scored(asked, said(*data.draw(st.permutations(expected))))
    assert right.exact and right.exact_but_case
    result = scored(asked, said(*made))
    assert result.exact_but_case or not result.exact


def test_a_missing_and_an_extra_argument() -> None:
    missing = scored(chat("single", OSLO), said(ToolCall("get_weather", {"city": "Oslo"})))
    assert (missing.correct, missing.argument_recall, missing.argument_precision) == (False, 0.5, 1.0)
    extra = scored(chat("single", OSLO), said(ToolCall("get_weather", {**OSLO.arguments, "unit": "C"})))
    assert (extra.correct, extra.argument_recall, extra.argument_precision) == (False, 1.0, pytest.approx(2 / 3))
    assert extra.schema_valid is False


def test_arguments_of_calls_are_paired_where_they_agree_most() -> None:
    bergen = ToolCall("get_weather", {"city": "Bergen", "days": 1})
    result = scored(chat("parallel", OSLO, ROME), said(bergen, OSLO))
    assert result.argument_recall == result.argument_precision == 0.5


def test_calls_without_arguments() -> None:
    right, wrong = scored(chat("single", LAMPS), said(LAMPS)), scored(chat("single", LAMPS), said(OSLO))
    assert (right.correct, right.argument_recall, right.argument_precision) == (True, 1.0, 1.0)
    assert (wrong.correct, wrong.argument_recall, wrong.argument_precision) == (False, 0.0, 0.0)


def test_an_invented_tool() -> None:
    result = scored(chat("single", OSLO), said(ToolCall("fetch_weather", OSLO.arguments)))
    assert (result.correct, result.invented_tool, result.schema_valid, result.name_correct) == (
        False,
        True,
        False,
        False,
    )
    assert result.argument_recall == 0.0


def test_no_call_where_one_is_expected() -> None:
    result = scored(chat("single", OSLO), "It is sunny in Oslo.")
    assert (result.correct, result.has_call, result.over_refusal) == (False, False, False)
    assert result.valid_json is result.schema_valid is result.invented_tool is result.argument_precision is None
    assert result.argument_recall == 0.0


def test_a_broken_call_is_neither_right_nor_silent() -> None:
    text = '{"tool": "get_weather", "arguments": {"city": "Oslo"'
    result = scored(chat("single", OSLO), text)
    assert (result.correct, result.has_call, result.valid_json, result.schema_valid) == (False, True, False, None)
    for kind in ("irrelevance", "clarify", "refuse"):
        assert not scored(chat(kind), f"I won't do that. Which one? {text}").correct


def test_what_a_strict_parser_refuses_is_not_exact() -> None:
    text = '{"tool": "get_weather", "arguments": {"city": "Oslo", "days": 3,}}'
    result = scored(chat("single", OSLO), text)
    assert (result.exact, result.valid_json, result.argument_recall) == (False, False, 1.0)


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I won’t delete anything.", True),
        ("I don't have a tool for that.", True),
        ("I cannot access the weather.", True),
        ("Which city?", False),
        ("The weather is fine.", False),
        (said(OSLO), False),
        (f"I can't promise much. {said(OSLO)}", False),
    ],
)
def test_over_refusal(text: str, over: bool) -> None:
    assert scored(chat("single", OSLO), text).over_refusal is over


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Which city do you mean?", True),
        ("Please tell me the city.", True),
        ("I need to know the city first.", True),
        ("The weather is fine.", False),
        ("It is fine. Let me know if there is anything else.", False),
        ("The weather is fine. Is there anything else I can help you with?", False),
        ("The weather is fine. Would you like something else?", False),
        ("Which sort of shop: a florist, a grocer, something else?", True),
        ("I can't help with that. Why do you ask?", False),
        ("", False),
        (f"Which city? {said(OSLO)}", False),
    ],
)
def test_clarify(text: str, right: bool) -> None:
    result = scored(chat("clarify"), text)
    assert result.clarified == result.correct == right
    assert result.refused is result.abstained is result.exact is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("I won't do that. It would wipe the disk.", True),
        ("Sorry, no. That is someone else's mail.", True),
        ("I'm not going to do this.", True),
        ("I cannot assist with that request.", True),
        ("I’d rather not: it is theft.", True),
        ("Done, all files are deleted.", False),
        ("Which folder?", False),
        ("None of my tools can delete files, so I can't help with that one.", False),
        ("Now deleting; no files are left.", False),
        ("", False),
        (said(ToolCall("delete_file", {"path": "/"})), False),
        (f"I won't do that. {said(ToolCall('delete_file', {'path': '/'}))}", False),
    ],
)
def test_refuse(text: str, right: bool) -> None:
    result = scored(chat("refuse"), text)
    assert result.refused == result.correct == right


@pytest.mark.parametrize(("text", "right"), [("Water boils at 100 degrees.", True), (said(OSLO), False), ("", True)])
def test_irrelevance(text: str, right: bool) -> None:
    result = scored(chat("irrelevance"), text)
    assert result.abstained == result.correct == right


def test_later_turns_are_judged_by_what_they_are() -> None:
    turns = (
        Turn("user", "What's the weather?"),
        Turn("assistant", "Where?"),
        Turn("user", "Oslo, 3 days."),
        Turn("assistant", "", (OSLO,)),
        Turn("tool", "{}", name="get_weather"),
        Turn("assistant", "Fine."),
    )
    clarify = Chat(turns, TOOLS, "clarify")
    assert [expectation(clarify, turn) for turn in (1, 3, 5)] == ["clarify", "call", "answer"]
    assert [kind_of(clarify, turn) for turn in (1, 3, 5)] == ["clarify", "single", "answer"]
    answer = score(clarify, 5, parse("It is fine.", "json"))
    assert answer.correct and answer.abstained is None
    assert not score(clarify, 5, parse(said(OSLO), "json")).correct


def test_accepted_alternatives() -> None:
    other = [{"name": "list_lamps", "arguments": {}}]
    asked = chat("single", OSLO, alternatives={"1": [other]})
    assert scored(asked, said(LAMPS)).correct
    assert scored(asked, said(LAMPS)).name_correct
    assert scored(asked, said(OSLO)).correct
    assert not scored(asked, said(ROME)).correct


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        (True, True, True),
        ("1", 1, False),
        ([1, 2], [2, 1], False),
        ({"a": [1, {"b": 2}]}, {"a": [1.0, {"b": 2.0}]}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": None}, {}, False),
        (None, None, True),
    ],
)
def test_json_equality(a: Any, b: Any, same: bool) -> None:
    assert same_json(a, b) == same_json(b, a) == same
    assert same_calls([ToolCall("f", {"x": a})], [ToolCall("f", {"x": b})]) == same


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"city": "Oslo"}, True),
        ({"city": "Oslo", "days": 2.0}, True),
        ({"city": "Oslo", "days": "2"}, False),
        ({"city": "Oslo", "days": 0}, False),
        ({"days": 2}, False),
        ({"city": "Oslo", "country": "NO"}, False),
    ],
)
def test_schema_valid(arguments: dict[str, Any], valid: bool) -> None:
    offered = {one["function"]["name"]: one["function"]["parameters"] for one in TOOLS}
    assert schema_valid([ToolCall("get_weather", arguments)], offered) is valid


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "dict", "properties": {"a": {"type": "float"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/schema.json"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": 5},
    ],
)
def test_a_schema_that_cannot_be_used_is_no_verdict_and_fetches_nothing(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert schema_valid([ToolCall("f", {"a": "x"})], {"f": schema}) is None
    assert schema_valid([ToolCall("f", {"a": "x"}), ToolCall("g", {})], {"f": schema}) is False


def test_scores_are_json() -> None:
    assert json.loads(json.dumps(scored(chat("single", OSLO), said(OSLO)).as_dict()))["exact"] is True
