"""Chats that look like tool chats whose tools or calls were not read: their calls would be trained as plain text."""

from __future__ import annotations

import json
import re
from typing import Any

from toolkit.chats import Chat, split_thought
from toolkit.data import hermes, toolace
from toolkit.data.items import ARGUMENTS
from toolkit.data.notes import Remarks

_MARKS = re.compile(
    r"<functioncall>\s*\{|\[TOOL_CALLS\]\s*\[?\s*[{\w]|<function=[\w.-]+>|<\|python_tag\|>|<tool_call>\s*<function"
    r"|^Action:[ \t]*\S.*\nAction Input:",
    re.MULTILINE,
)


def remark_on_tool_talk(chat: Chat, remarks: Remarks) -> None:
    """Remark on texts of the chat that are calls or lists of tools, though they were read as text."""
    offered = {tool["function"]["name"] for tool in chat.tools}
    for turn in chat.turns:
        if turn.role == "system" and not offered and _lists_tools(turn.content):
            remarks["looks like a tool chat, but no tools were read: the system text lists functions"] += 1
        if turn.role == "assistant" and (kind := _call_in(split_thought(turn.content)[1], offered)):
            unread = "no tools were read" if not offered else "it was read as text"
            remarks[f"looks like a tool call, but {unread}: an assistant's text {kind}"] += 1


def _lists_tools(text: str) -> bool:
    return hermes.has_tools(text) or toolace.read_system(text) is not None or ("<functions>" in text and "{" in text)


def _call_in(text: str, offered: set[str]) -> str:
    """How a text is a call, or an empty string."""
    if hermes.has_calls(text):
        return "holds <tool_call> and an object"
    if (match := _MARKS.search(text)) is not None:
        return f"holds {' '.join(match[0].split())[:20]}"
    stripped = text.strip()
    if stripped.startswith(("{", "[")) and _is_json_call(stripped, offered):
        return "is the JSON of a call"
    if toolace.is_call(text, sorted(offered)) or (not offered and toolace.looks_like_call(text)):
        return "is a call in brackets"
    return ""


def _is_json_call(text: str, offered: set[str]) -> bool:
    try:
        value = json.loads(text.split("\n", 1)[0] if text.startswith("{") and "\n{" in text else text)
    except (ValueError, RecursionError):
        return False
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, dict):
        return False
    function = value.get("function")
    inner: dict[str, Any] = function if isinstance(function, dict) else value
    name = next((inner[key] for key in ("name", "tool", "tool_name") if isinstance(inner.get(key), str)), None)
    if name is None or not any(key in inner for key in ARGUMENTS):
        return False
    return not offered or name in offered
