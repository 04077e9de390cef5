"""Calls that hold a JSON-RPC request are right with any id of its type, but where the chat names one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.call_parsing import Parsed
from toolkit.evaluation.scoring import Score, score
from toolkit.evaluation.wanted import same_calls, without_ids

TOOL = {"type": "function", "function": {"name": "jsonrpc", "parameters": {"type": "object", "properties": {}}}}


def request(id_: Any, city: str = "Oslo") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": "weather", "params": {"city": city, "id": 5}}


def judged(wanted: dict[str, Any], made: dict[str, Any], asked: str = "A table for 18 in Oslo.", **meta: Any) -> Score:
    turns = (Turn("user", asked), Turn("assistant", tool_calls=(ToolCall("jsonrpc", wanted),)))
    answer = Parsed(calls=(ToolCall("jsonrpc", made),), has_call=True, valid_json=True, in_format=True)
    return score(Chat(turns, (TOOL,), "single", meta=meta), 1, answer)


@pytest.mark.parametrize(
    ("wanted", "made", "right"),
    [
        (request(18), request(2), True),
        (request(18), request(18), True),
        (request(0), request(7), True),
        (request(18), request("a"), False),
        (request("a"), request("b7"), True),
        (request(18), request(None), False),
        (request(18), request(True), False),
        (request(18), request(2, "Rome"), False),
        (request(18), {**request(2), "params": {"city": "Oslo", "id": 6}}, False),
        (request(18), {key: value for key, value in request(18).items() if key != "id"}, False),
        ({"id": 18, "city": "Oslo"}, {"id": 2, "city": "Oslo"}, False),
        ({"jsonrpc": "1.0", "id": 18, "method": "m"}, {"jsonrpc": "1.0", "id": 2, "method": "m"}, False),
        ({"request": request(18)}, {"request": request(3)}, True),
        ({"batch": [request(1), request(2, "Rome")]}, {"batch": [request(8), request(9, "Rome")]}, True),
        ({"batch": [request(1), request(2, "Rome")]}, {"batch": [request(8), request(9)]}, False),
    ],
)
def test_the_id_of_a_request_is_the_clients(wanted: dict[str, Any], made: dict[str, Any], right: bool) -> None:
    assert judged(wanted, made).exact is judged(wanted, made).exact_but_case is right


@pytest.mark.parametrize("said", ["Use id 18.", 'Send it with "id": 18, please', "the ID is 18", "id number 18"])
def test_an_id_that_the_chat_names_is_the_one(said: str) -> None:
    assert judged(request(18), request(18), said).exact
    assert not judged(request(18), request(2), said).exact


def test_arguments_count_with_any_id() -> None:
    found = judged(request(18), request(2, "Rome"))
    assert (found.argument_recall, found.argument_precision) == (0.75, 0.75)


def test_alternatives_have_free_ids_too() -> None:
    other = [{"name": "jsonrpc", "arguments": request(4, "Rome")}]
    assert judged(request(18), request(9, "Rome"), alternatives={"1": [other]}).exact


def test_two_answers_are_the_same_only_with_the_same_ids() -> None:
    assert not same_calls([ToolCall("jsonrpc", request(1))], [ToolCall("jsonrpc", request(2))])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("id"), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_what_holds_no_request_stays_as_it_is(value: Any) -> None:
    assert without_ids(value) == value
