"""Turns out of messages: who speaks, what is said and called, and whether it is to be trained.

One reader for OpenAI's {role, content, tool_calls}, ShareGPT's {from, value} and all between: a turn is told by its own
keys. With `marks` the Hermes marks in texts are read too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolkit.chats import Role, split_thought
from toolkit.data.hermes import own_words, read_marked, read_marked_results
from toolkit.data.items import Piece, as_list, read_calls, read_pieces, result_text
from toolkit.data.notes import Fields, Remarks, RowError, quoted, report_unused, shown
from toolkit.data.spoken_turns import Call, Said
from toolkit.errors import did_you_mean, meant, nearest

CALL_ROLES = ("function_call", "tool_call", "function_calls", "tool_calls")
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    **dict.fromkeys(CALL_ROLES, "assistant"),
    "tool": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "tool_results": "tool",
    "tool_output": "tool",
    "function_response": "tool",
    "function_result": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
_CONTENT = ("content", "value", "text")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TRAINED = ("weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale")
# Other ways to say which part of a turn is trained: to pass over one would train what it leaves out.
_UNREAD = ("mask", "masked", "loss_mask", "train_detail", "training_detail")
_CALLS = ("tool_calls", "function_call")
_LIKE_CALLS = re.compile(r"(tool|function)s?(call|use|invocation)s?")
_BLANK_LINES = re.compile(r"\A\s*[\r\n]")
_WEIGHTS = frozenset((*_TRAINED, *_UNREAD))


def read_turns(items: Sequence[dict[str, Any]], remarks: Remarks, *, marks: bool = False) -> list[Said]:
    """The turns of a list of messages, in order. Raises `RowError`."""
    found: list[Said] = []
    for number, item in enumerate(items, 1):
        found += _turn(Fields(item, f"turn {number}"), number, remarks, marks)
    return found


def role_of(value: Any, what: str) -> Role:
    """The role that a name means. Raises `RowError` for one that is not known."""
    role = ROLES.get(str(value).lower())
    if role is None:
        near = did_you_mean(str(value), ROLES)
        raise RowError(f"{what}: unknown role {shown(value)}{near}", cause=f"unknown role {shown(value)}")
    return role


def _turn(fields: Fields, number: int, remarks: Remarks, marks: bool) -> list[Said]:
    said = fields.take("role", "from")
    if said is None:
        raise RowError(f"{fields.what}: no role: found {fields.found()}", cause="a turn without a role")
    role = role_of(said, fields.what)
    trained = _trained(fields, role, remarks)
    content = fields.take(*_CONTENT)
    if str(said).lower() in CALL_ROLES:
        turns = [_calling(fields, content, remarks)]
    elif role == "assistant":
        turns = _answering(fields, content, remarks, marks)
    elif role == "tool":
        turns = _resulting(fields, content, remarks, marks)
    else:
        turns = _speaking(fields, role, content, remarks, marks)
    if role == "assistant":
        _refuse_near_calls(fields)
    report_unused(fields, f"{role} turns", remarks)
    if nulls := fields.nulls(*_CONTENT):
        remarks["keys that are null in turns are read as absent"] += nulls
    return [replace(turn, number=number, trained=trained if turn.role == "assistant" else None) for turn in turns]


def _refuse_near_calls(fields: Fields) -> None:
    """Calls under a name that is nearly one of those that are read would be lost without a trace in what is trained."""
    for key, value in fields.unused():
        plain = re.sub(r"[^a-z]", "", key.lower())
        if key in _CALLS or value in ("", [], {}, False) or plain.endswith(("id", "ids")):
            continue
        if _LIKE_CALLS.fullmatch(plain) or nearest(key, _CALLS, alike=0.8):
            near = _CALLS[1] if "function" in plain and not isinstance(value, list) else _CALLS[0]
            raise RowError(
                f"{fields.what}: key {shown(key)} is not read{meant(near)}", cause="calls under a name that is not read"
            )


def _trained(fields: Fields, role: Role, remarks: Remarks) -> bool | None:
    if fields.lacks(_WEIGHTS):
        return None
    found: dict[str, bool] = {}
    for name in _TRAINED:
        value = fields.take(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise RowError(
                f"{fields.what}: {name} = {quoted(value)}, wanted 0 or 1: a turn is trained or it is not",
                cause=f"{name} that is neither 0 nor 1",
            )
        found[name] = bool(value)
    for name in _UNREAD:
        if fields.take(name):
            raise RowError(
                f"{fields.what}: {name} says in a way that is not read what is trained; wanted weight = 0 or 1",
                cause=f"{name}, which is not read",
            )
    if len(set(found.values())) > 1:
        raise RowError(
            f"{fields.what}: {' and '.join(found)} contradict each other", cause="weights of a turn that contradict"
        )
    value = next(iter(found.values()), None)
    if value and role != "assistant":
        remarks[f"{role} turns: {next(iter(found))} is not used; only answers are trained"] += 1
    return value


def _calling(fields: Fields, content: Any, remarks: Remarks) -> Said:
    """A turn whose role says that it is a call."""
    written = content if content not in (None, "") else fields.take(*_CALLS)
    calls = read_calls(written, fields.what, remarks) if written is not None else ()
    if not calls:
        raise RowError(f"{fields.what}: a call without a call in it: found {fields.found()}", cause="an empty call")
    return Said("assistant", _thought(fields, "", ""), calls)


def _answering(fields: Fields, content: Any, remarks: Remarks, marks: bool) -> list[Said]:
    pieces = read_pieces(content, fields.what, remarks) if content is not None else []
    refusal = fields.take("refusal")
    if isinstance(refusal, str) and refusal and not any(piece.text for piece in pieces):
        pieces = [Piece("text", refusal)]
    if any(piece.kind == "result" for piece in pieces):
        raise RowError(f"{fields.what}: a tool's result in an assistant turn", cause="a result in an assistant turn")
    thought = "\n".join(piece.text for piece in pieces if piece.kind == "thought")
    groups = _grouped([piece for piece in pieces if piece.kind != "thought"], fields.what, remarks, marks)
    calls = _structured_calls(fields, remarks)
    text = groups[0][0]
    if calls and any(inner for _, inner in groups):
        if [(call.name, call.arguments) for _, inner in groups for call in inner] != [
            (call.name, call.arguments) for call in calls
        ]:
            raise RowError(f"{fields.what}: calls in the text and in tool_calls that differ", "calls that contradict")
        groups = [(text, calls), *((more, ()) for more, _ in groups[1:])]
    elif calls:
        groups = [(text, calls), *groups[1:]]
    first = Said("assistant", _thought(fields, thought, groups[0][0]), groups[0][1])
    return [first, *(Said("assistant", more, inner) for more, inner in groups[1:] if more or inner)]


def _grouped(pieces: list[Piece], what: str, remarks: Remarks, marks: bool) -> list[tuple[str, tuple[Call, ...]]]:
    """Text and the calls that follow it, as often as they alternate."""
    if marks:
        pieces = [
            inner
            for piece in pieces
            for inner in (read_marked(piece.text, what, remarks) if piece.kind == "text" else [piece])
        ]
    groups: list[tuple[str, tuple[Call, ...]]] = [("", ())]
    for piece in pieces:
        text, calls = groups[-1]
        if piece.call is not None:
            groups[-1] = (text, (*calls, piece.call))
        elif calls and piece.text.strip():
            groups.append((piece.text, ()))
        elif not calls:
            groups[-1] = (text + piece.text, ())
    if not marks:
        return groups
    (text, calls), *others = groups
    # What indents the first words stays here, where other formats have it too: it is counted with them.
    return [(_BLANK_LINES.sub("", text).rstrip(), calls), *((text.strip(), calls) for text, calls in others)]


def _structured_calls(fields: Fields, remarks: Remarks) -> tuple[Call, ...]:
    written = fields.take(*_CALLS)
    return read_calls(written, fields.what, remarks) if written is not None else ()


def _thought(fields: Fields, thought: str, content: str) -> str:
    """The content with its thought before it, from whichever key has it."""
    written = fields.take(*_REASONING)
    if written is not None and not isinstance(written, str):
        raise RowError(f"{fields.what}: the reasoning: wanted text, got {shown(written)}", "reasoning that is no text")
    if written and thought and written.strip() != thought.strip():
        raise RowError(f"{fields.what}: two thoughts that differ", cause="thoughts that contradict")
    thought = (written or thought).strip()
    inner, answer = split_thought(content)
    if not thought or inner.strip() == thought:
        return content
    if inner.strip():
        raise RowError(f"{fields.what}: a thought in its text and another beside it", cause="thoughts that contradict")
    if "</think>" in thought:
        raise RowError(f"{fields.what}: a thought that holds </think>, which ends thoughts", "a thought with </think>")
    return f"<think>\n{thought}\n</think>\n\n{answer}"


def _resulting(fields: Fields, content: Any, remarks: Remarks, marks: bool) -> list[Said]:
    name = fields.take("name", "tool_name")
    written = fields.take("tool_call_id", "call_id", "tool_use_id")
    answers = "" if written is None else str(written)
    text = result_text(content, fields.what, remarks)
    if marks and (found := read_marked_results(text)):
        return [replace(said, name=said.name or (str(name) if name else None)) for said in found]
    return [Said("tool", text, name=str(name) if name else None, answers=answers)]


def _speaking(fields: Fields, role: Role, content: Any, remarks: Remarks, marks: bool) -> list[Said]:
    """A system or user turn; Anthropic's user turns hold results too."""
    if fields.take(*_CALLS):
        raise RowError(f"{fields.what}: calls in a {role} turn", cause="calls in a turn that is not the assistant's")
    if content is None:
        raise RowError(f"{fields.what}: no content: found {fields.found()}", cause="a turn without content")
    found: list[Said] = []
    for piece in read_pieces(content, fields.what, remarks):
        if piece.kind == "result" and role == "user":
            found.append(Said("tool", piece.text, answers=piece.answers))
        elif piece.kind != "text":
            raise RowError(f"{fields.what}: a {piece.kind} in a {role} turn", cause=f"a {piece.kind} in a {role} turn")
        elif found and found[-1].role == role:
            found[-1] = replace(found[-1], content=found[-1].content + piece.text)
        elif marks and role == "user" and (results := read_marked_results(piece.text, alone=True)):
            found += results
        elif marks and role == "system":
            found.append(Said(role, own_words(piece.text, fields.what, remarks)))
        else:
            found.append(Said(role, piece.text))
    if len(found) > 1:
        found = [said for said in found if said.role != role or said.content.strip()]
    if role == "system" and not found[0].content.strip():
        remarks["empty system turns are left out"] += 1
        return []
    return found


def list_of_turns(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of messages, or JSON text of one. Raises `RowError`."""
    items = as_list(value, what)
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise RowError(f"{what}: item {number} is no object: {shown(item)}", cause="a turn that is no object")
    return items
