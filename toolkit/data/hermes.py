"""The Hermes way of writing tools, calls and results as marked text inside messages."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from toolkit.data.chats import ToolCall, Turn
from toolkit.data.schemas import RowError

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
_TOOLS = re.compile(r"<tools>\s*([\[{].*?)\s*</tools>", re.DOTALL)  # not the preamble's own mention of the tags
# Where the usual tool preambles begin; a system text of the user's own stands before.
_PREAMBLE = re.compile(
    r"You are a function calling AI model|You are provided with function signatures|# Tools\b|<tools>"
)


@dataclass(frozen=True, slots=True)
class SystemText:
    """A system text taken apart: what the user wrote, and the JSON values between <tools> marks."""

    own: str
    tools: list[Any]


def read_calls(text: str, what: str) -> tuple[str, tuple[ToolCall, ...]]:
    """An assistant's text without its <tool_call> parts, and the calls in them. Raises `RowError`."""
    calls = []
    for block in _CALL.findall(text):
        value = _loads(block, f"{what}: <tool_call>")
        arguments = value.get("arguments", value.get("parameters", {})) if isinstance(value, dict) else None
        if isinstance(arguments, str):
            arguments = _loads(arguments, f"{what}: <tool_call>: arguments")
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(arguments, dict):
            raise RowError(f'{what}: <tool_call>: wanted "name" and an "arguments" object, got {block[:60]}')
        calls.append(ToolCall(value["name"], arguments))
    return _CALL.sub("", text).strip(), tuple(calls)


def read_system(text: str, what: str) -> SystemText | None:
    """A system text that lists tools, without its preamble; None when it lists none. Raises `RowError`."""
    listed = _TOOLS.search(text)
    if listed is None:
        return None
    preamble = _PREAMBLE.search(text)
    own = text[: preamble.start() if preamble else listed.start()].rstrip()
    return SystemText(own, _values(listed[1], what))


def read_results(text: str, *, tool_turn: bool) -> list[Turn]:
    """The <tool_response> parts of a tool's turn, or of a user's that holds nothing else, each as its own turn."""
    if not tool_turn and not (
        text.lstrip().startswith("<tool_response>") and text.rstrip().endswith("</tool_response>")
    ):
        return []
    return [_result(part) for part in _RESULT.findall(text)]


def _result(text: str) -> Turn:
    try:
        value = json.loads(text)
    except ValueError:
        return Turn("tool", text)
    if isinstance(value, dict) and set(value) == {"name", "content"}:
        content = value["content"]
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        return Turn("tool", text, name=str(value["name"]))
    return Turn("tool", text)


def _loads(text: str, what: str) -> Any:
    """JSON, or the Python literal that the Hermes data sets often hold in its place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise RowError(f"{what}: not JSON: {error}") from None


def _values(text: str, what: str) -> list[Any]:
    """A JSON list, or JSON values that follow each other with nothing but blank space between (one tool a line)."""
    decoder, position = json.JSONDecoder(), 0
    values: list[Any] = []
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            raise RowError(f"{what}: <tools>: not JSON: {error}") from error
        values += value if isinstance(value, list) else [value]
        while position < len(text) and (text[position].isspace() or text[position] == ","):
            position += 1
    return values
