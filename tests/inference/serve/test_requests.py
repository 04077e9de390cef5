"""Bodies of every shape: each is an ask or a refusal, never a fault."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import ADD
from toolkit.inference.serve.bounds import Refused
from toolkit.inference.serve.requests import read_chat, read_json, read_text

CHAT: dict[str, Any] = {
    "model": "any",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "1 plus 2?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "3"},
    ],
    "tools": [ADD],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "temperature": 0.5,
    "stop": ["END"],
    "max_tokens": 5,
    "stream_options": {"include_usage": True},
}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


PLACES = places(CHAT)[1:]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD, st.booleans()), min_size=1, max_size=3))
def test_any_body_is_an_ask_or_a_refusal(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    body = copy.deepcopy(CHAT)
    for path, odd, drop in changes:
        at: Any = body
        try:
            for key in path[:-1]:
                at = at[key]
            if drop:
                del at[path[-1]]
            else:
                at[path[-1]] = odd
        except (KeyError, IndexError, TypeError):  # an earlier change has taken this place away
            continue
    for read in (read_chat, read_text):
        try:
            read(read_json(json.dumps(body).encode()))  # type: ignore[operator]
        except Refused as refused:
            assert 400 <= refused.status < 500 and refused.message and len(refused.message) < 1000
            assert not re.search("Input should|Field required|instance of", refused.message)  # pydantic's words


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-16")))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(read_json(body), dict)
    except Refused as refused:
        assert refused.status == 400


def test_the_whole_body_is_read() -> None:
    asked = read_chat(read_json(json.dumps(CHAT).encode()))
    assert [turn.role for turn in asked.turns] == ["system", "user", "assistant", "tool"]
    assert asked.tools == (ADD,) and asked.must == ("add",) and asked.sampling.max_tokens == 5
    assert asked.sampling.include_usage and not asked.sampling.stream
    with pytest.raises(Refused, match="nested"):
        read_json(b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}")


@pytest.mark.parametrize(
    ("sent", "most", "more"),
    [
        ({"max_tokens": -1}, None, {}),
        ({"max_tokens": 9, "max_completion_tokens": 4}, 4, {}),
        ({"stop": ["", "END"]}, None, {"stop": ["END"]}),
        ({"stop": [""]}, None, {}),
        ({"temperature": 1, "top_p": 0}, None, {"temperature": 1, "top_k": 0, "top_p": 0, "min_p": 0.0}),
    ],
)
def test_settings_as_clients_of_others_send_them(sent: dict[str, Any], most: int | None, more: dict[str, Any]) -> None:
    """-1 for as many tokens as fit; an empty stop is none; top_p from 0 on."""
    for read, asked in ((read_chat, {"messages": CHAT["messages"]}), (read_text, {"prompt": "Once"})):
        sampling = read({**asked, **sent}).sampling  # type: ignore[operator]
        assert sampling.max_tokens == most and sampling.values == {"temperature": 0.0, **more}
