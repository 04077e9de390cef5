"""The Hermes way of writing tools, calls and results as marked text inside messages.

A mark is one only where its content follows: <tool_call> before an object, <tools> before JSON. A text that mentions a
mark is text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from toolkit.chats import split_thought
from toolkit.data.items import Piece, read_call
from toolkit.data.jsontext import STRICT, dumps, literal, not_json, refuse_halves
from toolkit.data.notes import Remarks, RowError
from toolkit.data.spoken_turns import Said

CALL = re.compile(r"<tool_call>\s*(?=\{)")
TOOLS = re.compile(r"<tools>\s*(?=[\[{])")  # not the preamble's own mention of the marks
_END = re.compile(r"\s*(?:</tool_call>|(?=<tool_call>)|\Z)")
_END_OF_TOOLS = re.compile(r"[\s,]*</tools>")
_BETWEEN = re.compile(r"[\s,]*")
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
# Where the usual tool preambles begin; a system text of the user's own stands before.
_PREAMBLE = re.compile(
    r"You are a function calling AI model|You are provided with function signatures|"
    r"# Tools\s+You (?:may call|are provided|have access)|<tools>"
)
_AFTER = re.compile(r"\s*(?:For each|Use the following)\b.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SystemText:
    """A system text taken apart: what the user wrote, and the JSON values between <tools> marks."""

    own: str
    tools: list[Any]


def has_calls(text: str) -> bool:
    """Whether a text holds a marked call, not only the mark."""
    return CALL.search(text) is not None


def has_tools(text: str) -> bool:
    """Whether a text lists tools between marks, not only mentions them."""
    return TOOLS.search(text) is not None


def read_marked(text: str, what: str, remarks: Remarks) -> list[Piece]:
    """An assistant's text as the pieces that it says and calls, in order. Raises `RowError`."""
    _, answer = split_thought(text)
    start = len(text) - len(answer)  # a thought may think about marks
    pieces: list[Piece] = []
    position = 0
    while (match := CALL.search(text, max(position, start))) is not None:
        if said := text[position : match.start()]:
            pieces.append(Piece("text", said))
        value, position, closed = _call(text, match.end(), f"{what}: <tool_call>")
        if not closed:
            remarks["calls without a closing mark are read as whole"] += 1
        pieces.append(Piece("call", call=read_call(value, f"{what}: <tool_call>", remarks)))
    if position < len(text):
        pieces.append(Piece("text", text[position:]))
    return pieces


def _call(text: str, start: int, what: str) -> tuple[Any, int, bool]:
    """The object that begins at `start`, where its closing mark ends, and whether it has one."""
    try:
        value, stop = STRICT.raw_decode(text, start)
    except (ValueError, RecursionError):
        stop = min(
            (i for i in (text.find("</tool_call>", start), text.find("<tool_call>", start)) if i >= 0), default=-1
        )
        stop = len(text) if stop < 0 else stop
        value = literal(text[start:stop], what)
    end = _END.match(text, stop)
    if end is None:
        raise RowError(f"{what}: more after the call than its closing mark", cause="more after a call than its mark")
    refuse_halves(value, what)
    return value, end.end(), bool(end[0].strip())


def read_system(text: str, what: str) -> SystemText | None:
    """A system text that lists tools, without what it says about calling them; None when it lists none.

    Raises `RowError`.
    """
    listed = TOOLS.search(text)
    if listed is None:
        return None
    values, stop = _values(text, listed.end(), f"{what}: <tools>")
    preamble = _PREAMBLE.search(text)
    before = text[: preamble.start() if preamble else listed.start()].rstrip()
    rest = text[stop:]
    example = rest.rfind("</tool_call>")
    after = rest[example + len("</tool_call>") :] if example >= 0 else "" if _AFTER.fullmatch(rest) else rest
    return SystemText("\n\n".join(part for part in (before, after.strip()) if part), values)


def own_words(text: str, what: str, remarks: Remarks) -> str:
    """A system text without tools and the words around them."""
    system = read_system(text, what)
    if system is None:
        return text
    remarks["system turns: the tools and the words about calling them are read out of the text"] += 1
    return system.own


def read_marked_results(text: str, *, alone: bool = False) -> list[Said]:
    """The <tool_response> parts of a tool's turn, each as a turn of its own; none where the text is more than that.

    `alone` for a user's turn, which holds results only when it holds nothing else.
    """
    parts = _RESULT.findall(text)
    if not parts or _RESULT.sub("", text).strip():
        return [] if alone or not parts else [Said("tool", text)]
    return [_result(part) for part in parts]


def _result(text: str) -> Said:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Said("tool", text)
    if isinstance(value, dict) and {"name", "content"} <= set(value) <= {"name", "content", "tool_call_id"}:
        content = value["content"]
        written = content if isinstance(content, str) else dumps(content, "<tool_response>")
        return Said("tool", written, name=str(value["name"]), answers=str(value.get("tool_call_id") or ""))
    return Said("tool", text)


def _values(text: str, start: int, what: str) -> tuple[list[Any], int]:
    """A JSON list, or JSON values that follow each other with nothing but blank space between (one tool a line), and
    where the closing mark ends."""
    values: list[Any] = []
    while (end := _END_OF_TOOLS.match(text, start)) is None:
        match = _BETWEEN.match(text, start)
        start = match.end() if match else start
        if start >= len(text):
            raise RowError(f"{what}: the list has no </tools>", cause="<tools> without an end")
        try:
            value, start = STRICT.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise not_json(error, what) from None
        refuse_halves(value, what)
        values += value if isinstance(value, list) else [value]
    return values, end.end()
