"""Rows of messages, as tests read them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.toys import ADD, WEATHER
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


def result(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}
