"""From rows of the usual data sets to chats. A row's keys, roles and blocks tell its format, or the recipe
does.

messages            messages (or conversations) of {role, content, tool_calls}, and tools; OpenAI's, Anthropic's, ...
sharegpt            conversations of {from, value}: human, gpt, function_call, observation, ...; tools; system
alpaca              instruction, input, output; system, history
prompt_completion   prompt and completion, both text or both lists of messages; tools; only the completion is trained
xlam                query, tools, answers
hermes              messages or conversations with <tool_call> blocks in the assistant's text, <tools> in the system's
glaive              system and chat as text, with <functioncall> and FUNCTION RESPONSE
toolace             conversations with a JSON list of functions in the system text and [name(key=value)] as calls
columns             whatever the recipe's `columns` name

Lists and objects may be JSON text throughout. A word in a text never decides. What every chat goes through stands in
`toolkit.data.spoken_turns`; every key that is not used is remarked on. A chat without an assistant turn, an empty
answer, or a call to a tool that is not on offer raises `RowError`. docs/data-formats.md says it for users.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from toolkit.chats import KINDS, Chat, Role
from toolkit.data import glaive, hermes, toolace
from toolkit.data.columns import likely
from toolkit.data.items import as_list, read_calls
from toolkit.data.notes import Fields, Remarks, RowError, report_unused, shown
from toolkit.data.schemas import Tools, read_tools
from toolkit.data.spoken_turns import Said, finish
from toolkit.data.suspects import remark_on_tool_talk
from toolkit.data.turns import CALL_ROLES, ROLES, list_of_turns, read_turns
from toolkit.data.unwanted import preference, refuse_unwanted
from toolkit.errors import did_you_mean, nearest

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "xlam", "hermes", "glaive", "toolace"]

NEEDED: dict[Format, str] = {
    "messages": "messages (or conversations) of role and content",
    "sharegpt": "conversations of from and value",
    "alpaca": "instruction and output",
    "prompt_completion": "prompt and completion",
    "xlam": "query, tools and answers",
    "glaive": "system and chat, a text of USER: and ASSISTANT:",
    "hermes": "messages or conversations with <tool_call> in the text",
    "toolace": "conversations and a system text with a JSON list of functions",
}
_OTHERS = {
    "text": "a text that holds a whole chat can't be parted into turns",
}
TURN_KEYS = ("messages", "conversations", "conversation")
_TOOL_KEYS = ("tools", "functions")
_SYSTEM_KEYS = ("system", "system_prompt")
_MESSAGES_AS_TEXT = re.compile(r'\s*\[\s*\{\s*"(?:role|content)"\s*:')  # in a CSV cell, say

_Converted = tuple[list[Said], Tools]


def convert(
    row: Any,
    format: Format | Literal["auto", "columns"],
    *,
    where: str,
    source: str,
    remarks: Remarks | None = None,
) -> Chat:
    """One row as a chat, whose meta names the format; what it says and is not used is added to `remarks`.

    Raises `RowError`.
    """
    remarks = Remarks() if remarks is None else remarks
    if not isinstance(row, dict):
        raise RowError(f"wanted an object, got {shown(row)}", cause="a row that is no object")
    try:
        found = detect(row) if format == "auto" else format
        fields = Fields(row, "the row")
        kind = _kind(fields, remarks)
        said, tools = _CONVERTERS[found](fields, remarks)
        refuse_unwanted(fields, found)
        turns = finish(said, tools, remarks)
        chat = Chat(
            turns=turns,
            tools=tools.schemas,
            kind=kind,
            source=source,
            where=where,
            meta={"format": found},
        )
        remark_on_tool_talk(chat, remarks)
        report_unused(fields, "rows", remarks)
    except RecursionError:
        raise RowError("nested too deep", cause="nested too deep") from None
    return chat


def _kind(fields: Fields, remarks: Remarks) -> str:
    """What a row says it is, where that is one of `KINDS`."""
    kind = fields.take("kind")
    if kind is None or kind in KINDS:
        return kind or "other"
    near = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
    told = f"{shown(kind)}{near}" if near else f"none of {', '.join(KINDS[:-1])}"
    remarks[f"rows: key kind is not used: {told}"] += 1
    return "other"


def detect(row: dict[str, Any]) -> Format:
    """The format that a row is in. Raises `RowError` that lists what was looked for."""
    keys = {key for key, value in row.items() if value is not None}
    if any(key in keys for key in TURN_KEYS):
        return _detect_turns(row)
    if {"query", "answers"} <= keys:
        return "xlam"
    if {"prompt", "completion"} <= keys:
        return "prompt_completion"
    if {"instruction", "output"} <= keys:
        return "alpaca"
    if glaive.is_glaive(row):
        return "glaive"
    raise unknown_format(row)


def unknown_format(row: dict[str, Any]) -> RowError:
    """What to say of a row that is in no format."""
    if {"chosen", "rejected"} <= row.keys():
        return preference(row)
    wanted = "; ".join(f"{name}: {needs}" for name, needs in NEEDED.items() if name not in ("hermes", "toolace"))
    found = ", ".join(sorted(map(shown, row))) or "nothing"
    for key in row:
        if near := nearest(str(key), TURN_KEYS, alike=0.8):
            found += f" (did you mean {near} by {shown(key)}?)"
    why = next((f" ({reason})" for key, reason in _OTHERS.items() if key in row), "")
    here = f" = {columns}" if (columns := likely(row)) else ""
    return RowError(
        f"no known format: found {found}{why}; wanted one of {wanted}; "
        f"other names are given by data.sources.columns{here}",
        cause="no known format",
    )


def _detect_turns(row: dict[str, Any]) -> Format:
    turns = _turn_list(Fields(row, "the row"))
    structured = any(turn.get("tool_calls") or turn.get("function_call") or _role(turn) in CALL_ROLES for turn in turns)
    if not structured:
        has_tools = any(row.get(key) not in (None, "", [], "[]") for key in _TOOL_KEYS)
        systems = [*_texts(turns, "system"), *(text for key in _SYSTEM_KEYS if isinstance(text := row.get(key), str))]
        answers = _texts(turns, "assistant")
        if any(map(hermes.has_tools, systems)) or (has_tools and any(map(hermes.has_calls, answers))):
            return "hermes"
        if not has_tools:
            listed = next((one for text in systems if (one := toolace.read_system(text)) is not None), None)
            if listed and (listed.known or any(toolace.is_call(text, listed.names) for text in answers)):
                return "toolace"
    return "sharegpt" if turns and "from" in turns[0] else "messages"


def _role(turn: dict[str, Any]) -> str:
    return str(turn.get("role") or turn.get("from")).lower()


def _texts(turns: Iterable[dict[str, Any]], role: Role) -> list[str]:
    contents = [turn.get("content") or turn.get("value") for turn in turns if ROLES.get(_role(turn)) == role]
    return [content for content in contents if isinstance(content, str)]


def _turn_list(fields: Fields) -> list[dict[str, Any]]:
    value = fields.take(*TURN_KEYS)
    if value is None:
        raise RowError(f"no {' or '.join(TURN_KEYS[:2])}: found {fields.found()}", cause="no messages")
    return list_of_turns(value, next(key for key in TURN_KEYS if fields.has(key)))


def _tools(fields: Fields, remarks: Remarks, *, xlam: bool = False) -> Tools:
    return read_tools(fields.take(*_TOOL_KEYS), remarks, xlam=xlam)


def _messages(fields: Fields, remarks: Remarks) -> _Converted:
    said = read_turns(_turn_list(fields), remarks)
    return _with_system(fields, said, remarks), _tools(fields, remarks)


def _hermes(fields: Fields, remarks: Remarks) -> _Converted:
    items = _turn_list(fields)
    tools = _tools(fields, remarks)
    for text in [*_texts(items, "system"), *(text for text in [_system_text(fields)] if text)]:
        system = hermes.read_system(text, "the system text")
        if system is not None and not tools:
            tools = read_tools(system.tools, remarks)
    said = _with_system(fields, read_turns(items, remarks, marks=True), remarks, marks=True)
    return said, tools


def _toolace(fields: Fields, remarks: Remarks) -> _Converted:
    said = _with_system(fields, read_turns(_turn_list(fields), remarks), remarks)
    tools = _tools(fields, remarks)
    found: list[Said] = []
    names: list[str] = tools.names
    asked = 0
    for turn in said:
        if turn.role == "system" and (listed := toolace.read_system(turn.content)) is not None and not tools:
            remarks["system texts: the functions and the words about calling them are read out of the text"] += 1
            tools, names = read_tools(listed.tools, remarks), listed.names
            found += [replace(turn, content=listed.own)] if listed.own else []
        elif turn.role == "assistant" and (
            toolace.is_call(turn.content, names) or toolace.looks_like_call(turn.content)
        ):
            calls = toolace.read_bracket_calls(turn.content, names, f"turn {turn.number}")
            asked = len(calls)
            found.append(replace(turn, content="", calls=(*turn.calls, *calls)))
        elif turn.role == "tool":
            found += [replace(one, number=turn.number) for one in toolace.read_results(turn.content, asked)]
        else:
            found.append(turn)
    return found, tools


def _glaive(fields: Fields, remarks: Remarks) -> _Converted:
    chat = fields.take("chat")
    if not isinstance(chat, str):
        raise _missing(fields, "glaive", "chat")
    own, listed = glaive.read_system(_text(fields.take("system"), "system"), remarks)
    said = glaive.read_chat(chat, remarks)
    tools = _tools(fields, remarks)
    return [*([Said("system", own)] if own else []), *said], tools or read_tools(listed, remarks)


def _alpaca(fields: Fields, remarks: Remarks) -> _Converted:
    instruction, output = _need(fields, "alpaca", "instruction", "output")
    turns: list[Said] = []
    for pair in as_list(fields.take("history") or (), "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("history: wanted pairs of instruction and answer")
        turns += [Said("user", _text(pair[0], "history")), Said("assistant", _text(pair[1], "history"))]
    asked, extra = _text(instruction, "instruction"), _text(fields.take("input"), "input")
    turns.append(Said("user", f"{asked}\n\n{extra}" if extra.strip() else asked))
    turns.append(Said("assistant", _text(output, "output")))
    return _with_system(fields, turns, remarks), _tools(fields, remarks)


def _prompt_completion(fields: Fields, remarks: Remarks) -> _Converted:
    prompt, completion = _need(fields, "prompt_completion", "prompt", "completion")
    parts: list[Said] = []
    for key, role, value in (("prompt", "user", prompt), ("completion", "assistant", completion)):
        if isinstance(value, str) and not _MESSAGES_AS_TEXT.match(value):
            said = [Said(role, value)]  # type: ignore[arg-type]
        else:
            said = read_turns(list_of_turns(value, key), remarks)
        if key == "prompt":
            said = [replace(turn, trained=False) if turn.role == "assistant" else turn for turn in said]
        parts += said
    numbered = [replace(turn, number=number) for number, turn in enumerate(parts, 1)]
    return _with_system(fields, numbered, remarks), _tools(fields, remarks)


def _xlam(fields: Fields, remarks: Remarks) -> _Converted:
    query, answers = _need(fields, "xlam", "query", "answers")
    turns = [Said("user", _text(query, "query")), Said("assistant", "", read_calls(answers, "answers", remarks))]
    return _with_system(fields, turns, remarks), _tools(fields, remarks, xlam=True)


def _columns(fields: Fields, remarks: Remarks) -> _Converted:
    """A row that `toolkit.data.columns` has renamed: user and assistant are text."""
    user, answer = _text(fields.take("user"), "user"), _text(fields.take("assistant"), "assistant")
    turns = [Said("user", user, number=1), Said("assistant", answer, number=2)]
    return _with_system(fields, turns, remarks), _tools(fields, remarks)


_CONVERTERS: dict[str, Callable[[Fields, Remarks], _Converted]] = {
    "messages": _messages,
    "sharegpt": _messages,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "xlam": _xlam,
    "hermes": _hermes,
    "glaive": _glaive,
    "toolace": _toolace,
    "columns": _columns,
}


def _system_text(fields: Fields) -> str:
    value = fields.take(*_SYSTEM_KEYS)
    if isinstance(value, list):  # Anthropic's blocks
        texts = [part.get("text") if isinstance(part, dict) else None for part in value]
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    return _text(value, "system")


def _with_system(fields: Fields, turns: list[Said], remarks: Remarks, *, marks: bool = False) -> list[Said]:
    system = _system_text(fields)
    if marks:
        system = hermes.own_words(system, "system", remarks)
    if not system.strip():
        return turns
    there = next((turn for turn in turns if turn.role == "system"), None)
    if there is None:
        return [Said("system", system), *turns]
    if there.content.strip() != system.strip():
        raise RowError(
            f"turn {there.number} is a system turn, and system stands beside the messages too; leave one of them",
            cause="two system texts",
        )
    return turns


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise RowError(f"{what}: wanted text, got {shown(value)}", cause=f"{what} that is no text")


def _need(fields: Fields, format: Format, *keys: str) -> list[Any]:
    missing = [key for key in keys if not fields.has(key)]
    if missing:
        raise _missing(fields, format, *missing)
    return [fields.take(key) for key in keys]


def _missing(fields: Fields, format: Format, *keys: str) -> RowError:
    return RowError(
        f"{format} needs {NEEDED[format]}; missing: {', '.join(keys)}; found {fields.found()}",
        cause=f"{format} without {', '.join(keys)}",
    )
