"""From rows of the usual data sets to chats. The format is found by looking at each row, or set in the recipe.

messages            messages (or conversations) of {role, content, tool_calls}, and tools; OpenAI's shape
sharegpt            conversations of {from, value}: human, gpt, function_call, observation, ...; tools; system
alpaca              instruction, input, output; system, history
prompt_completion   prompt and completion, both text or both lists of messages; tools
xlam                query, tools, answers
hermes              messages or conversations with <tool_call> in the assistant's text, <tools> in the system's

Lists and objects may be JSON text throughout. What every chat goes through: assistant turns that follow each other are
joined into one (but for text after a call, which stays a turn of its own), turns after the last answer are left out
(nothing in them is trained), tools get the one shape of `toolkit.data.schemas`. A chat without an assistant turn, an
empty answer, or a call to a tool that is not on offer raises `RowError`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from toolkit.data.chats import KINDS, Chat, Role, ToolCall, Turn, split_thought
from toolkit.data.hermes import read_calls, read_results, read_system
from toolkit.data.schemas import RowError, loads, read_tools, read_xlam_tools
from toolkit.errors import did_you_mean

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "xlam", "hermes"]

NEEDED: dict[Format, str] = {
    "messages": "messages (or conversations) of role and content",
    "sharegpt": "conversations of from and value",
    "alpaca": "instruction and output",
    "prompt_completion": "prompt and completion",
    "xlam": "query, tools and answers",
    "hermes": "messages or conversations with <tool_call> in the text",
}
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
_CALL_ROLES = ("function_call", "tool_call")
_TURN_KEYS = ("messages", "conversations", "conversation")
_MESSAGES_AS_TEXT = re.compile(r'\s*\[\s*\{\s*"role"\s*:')  # in a CSV cell, say


def convert(row: Any, format: Format | Literal["auto"], *, where: str, source: str) -> Chat:
    """One row as a chat, whose meta names the format. Raises `RowError`."""
    if not isinstance(row, dict):
        raise RowError(f"wanted an object, got {type(row).__name__}")
    found = detect(row) if format == "auto" else format
    turns, tools = _CONVERTERS[found](row)
    kind = row.get("kind")
    return Chat(
        turns=_finish(turns, tools),
        tools=tools,
        kind=kind if kind in KINDS else "other",
        source=source,
        where=where,
        meta={"format": found},
    )


def detect(row: dict[str, Any]) -> Format:
    """The format that a row is in. Raises `RowError` that lists what was looked for."""
    keys = {key for key, value in row.items() if value is not None}
    for key in _TURN_KEYS:
        if key in keys:
            turns = _list_of_turns(row)
            first = turns[0] if turns else {}
            text = "".join(str(turn.get("content") or turn.get("value") or "") for turn in turns)
            if ("<tool_call>" in text or "<tools>" in text) and not any(turn.get("tool_calls") for turn in turns):
                return "hermes"
            return "sharegpt" if "from" in first else "messages"
    if {"query", "answers"} <= keys:
        return "xlam"
    if {"prompt", "completion"} <= keys:
        return "prompt_completion"
    if {"instruction", "output"} <= keys:
        return "alpaca"
    wanted = "; ".join(f"{name}: {needs}" for name, needs in NEEDED.items() if name != "hermes")
    raise RowError(f"no known format: found {', '.join(sorted(map(str, row))) or 'nothing'}; wanted one of {wanted}")


_Converted = tuple[list[Turn], tuple[dict[str, Any], ...]]


def _messages(row: dict[str, Any]) -> _Converted:
    items = _list_of_turns(row)
    return _turns(items), read_tools(_tools_value(row))


def _turns(items: list[dict[str, Any]]) -> list[Turn]:
    turns: list[Turn] = []
    names: dict[str, str] = {}  # of the calls with an id
    for number, item in enumerate(items, 1):
        what = f"turn {number}"
        role = _role(item.get("role", item.get("from")), what)
        content = _text(item.get("content", item.get("value")), what, as_json=role == "tool")
        if role == "assistant":
            written = item.get("tool_calls") or item.get("function_call") or ()
            calls = _calls(written, what)
            names |= {
                str(one["id"]): call.name
                for one, call in zip(_as_list(written, what), calls, strict=True)
                if isinstance(one, dict) and one.get("id")
            }
            reasoning = item.get("reasoning_content")
            if isinstance(reasoning, str) and reasoning.strip():
                content = f"<think>\n{reasoning.strip()}\n</think>\n\n{content}"
            turns.append(Turn("assistant", content, calls))
        elif role == "tool":
            name = item.get("name") or names.get(str(item.get("tool_call_id")))
            turns.append(Turn("tool", content, name=str(name) if name else None))
        else:
            turns.append(Turn(role, content))
    return turns


def _sharegpt(row: dict[str, Any]) -> _Converted:
    turns: list[Turn] = []
    for number, item in enumerate(_list_of_turns(row), 1):
        what = f"turn {number}"
        said = item.get("from", item.get("role"))
        role = _role(said, what)
        value = item.get("value", item.get("content"))
        if said in _CALL_ROLES:
            turns.append(Turn("assistant", "", _calls(value, what)))
        else:
            turns.append(Turn(role, _text(value, what, as_json=role == "tool")))
    return _with_system(row, turns), read_tools(_tools_value(row))


def _alpaca(row: dict[str, Any]) -> _Converted:
    _need(row, "alpaca", "instruction", "output")
    turns: list[Turn] = []
    for pair in _as_list(row.get("history") or (), "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError("history: wanted pairs of instruction and answer")
        turns += [Turn("user", str(pair[0])), Turn("assistant", str(pair[1]))]
    instruction, extra = _text(row["instruction"], "instruction"), _text(row.get("input"), "input")
    turns.append(Turn("user", f"{instruction}\n\n{extra}" if extra.strip() else instruction))
    turns.append(Turn("assistant", _text(row["output"], "output")))
    return _with_system(row, turns), read_tools(_tools_value(row))


def _prompt_completion(row: dict[str, Any]) -> _Converted:
    _need(row, "prompt_completion", "prompt", "completion")
    parts: list[Turn] = []
    roles: tuple[tuple[str, Role], ...] = (("prompt", "user"), ("completion", "assistant"))
    for key, role in roles:
        value = row[key]
        if isinstance(value, str) and not _MESSAGES_AS_TEXT.match(value):
            parts.append(Turn(role, value))
        else:
            parts += _turns(_dicts(value, key))
    return _with_system(row, parts), read_tools(_tools_value(row))


def _xlam(row: dict[str, Any]) -> _Converted:
    _need(row, "xlam", "query", "answers")
    turns = [Turn("user", _text(row["query"], "query")), Turn("assistant", "", _calls(row["answers"], "answers"))]
    return _with_system(row, turns), read_xlam_tools(_tools_value(row))


def _hermes(row: dict[str, Any]) -> _Converted:
    tools = list(read_tools(_tools_value(row)))
    turns: list[Turn] = []
    for number, item in enumerate(_list_of_turns(row), 1):
        what = f"turn {number}"
        role = _role(item.get("from", item.get("role")), what)
        text = _text(item.get("value", item.get("content")), what, as_json=role == "tool")
        if role == "system" and (system := read_system(text, what)) is not None:
            tools = tools or list(read_tools(system.tools))
            turns += [Turn("system", system.own)] if system.own else []
        elif role == "assistant":
            content, calls = read_calls(text, what)
            turns.append(Turn("assistant", content, calls))
        elif results := read_results(text, tool_turn=role == "tool"):
            turns += results
        else:
            turns.append(Turn(role, text))
    return turns, tuple(tools)


_CONVERTERS = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "xlam": _xlam,
    "hermes": _hermes,
}


def _finish(turns: list[Turn], tools: tuple[dict[str, Any], ...]) -> tuple[Turn, ...]:
    """What holds for every chat (see the module)."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and _joins(joined[-1], turn):
            before = joined.pop()
            content = "\n\n".join(part for part in (before.content, turn.content) if part)
            turn = Turn("assistant", content, before.tool_calls + turn.tool_calls)
        joined.append(turn)
    while joined and joined[-1].role != "assistant":
        joined.pop()
    if not joined:
        raise RowError("no assistant turn, so nothing to train on")
    offered = [tool["function"]["name"] for tool in tools]
    for turn in joined:
        if turn.role == "assistant" and not turn.content.strip() and not turn.tool_calls:
            raise RowError("an assistant turn is empty: no text and no call")
        for call in turn.tool_calls:
            if call.name not in offered:
                hint = did_you_mean(call.name, offered) or (
                    f"; on offer: {', '.join(offered[:8])}" if offered else "; the row offers no tools"
                )
                raise RowError(f"calls unknown tool {call.name}{hint}")
    return tuple(joined)


def _joins(before: Turn, turn: Turn) -> bool:
    """Whether two assistant turns are one: what is said after a call stays after it, a thought stays at the head."""
    if before.role != "assistant" or turn.role != "assistant" or before.trained != turn.trained:
        return False
    return not (before.tool_calls and turn.content) and not (before.content and split_thought(turn.content)[0])


def _calls(value: Any, what: str) -> tuple[ToolCall, ...]:
    """Calls from a list, one object, or JSON text of either; arguments may be JSON text too."""
    return tuple(_call(item, what) for item in _as_list(value, what))


def _call(item: Any, what: str) -> ToolCall:
    if isinstance(item, str):
        item = loads(item, f"{what}: call")
    function = item.get("function", item) if isinstance(item, dict) else item
    if isinstance(function, str) and isinstance(item, dict):
        function = {"name": function, "arguments": item.get("arguments")}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{what}: a call needs a name")
    name = function["name"]
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = loads(arguments, f"{what}: arguments of {name}") if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise RowError(f"{what}: arguments of {name}: wanted a JSON object, got {json.dumps(arguments)[:60]}")
    return ToolCall(name, arguments)


def _list_of_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    for key in _TURN_KEYS:
        if row.get(key) is not None:
            return _dicts(row[key], key)
    raise RowError(f"no {' or '.join(_TURN_KEYS[:2])}: found {', '.join(sorted(map(str, row))) or 'nothing'}")


def _dicts(value: Any, what: str) -> list[dict[str, Any]]:
    items = _as_list(value, what)
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise RowError(f"{what}: item {number} is no object")
    return items


def _as_list(value: Any, what: str) -> list[Any]:
    if isinstance(value, str):
        value = loads(value, what) if value.strip() else []
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    raise RowError(f"{what}: wanted a list, got {type(value).__name__}")


def _role(value: Any, what: str) -> Role:
    role = _ROLES.get(str(value).lower())
    if role is None:
        raise RowError(f"{what}: unknown role {value!r}{did_you_mean(str(value), _ROLES)}")
    return role


def _text(value: Any, what: str, *, as_json: bool = False) -> str:
    """A turn's text. Parts of type text are joined; a tool's JSON value is written as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, list)
        and value
        and all(isinstance(part, dict) and part.get("type") == "text" for part in value)
    ):
        return "".join(str(part.get("text") or "") for part in value)
    if as_json:
        return json.dumps(value, ensure_ascii=False)
    raise RowError(f"{what}: wanted text, got {type(value).__name__}")


def _with_system(row: dict[str, Any], turns: list[Turn]) -> list[Turn]:
    system = _text(row.get("system"), "system")
    return [Turn("system", system), *turns] if system.strip() else turns


def _tools_value(row: dict[str, Any]) -> Any:
    return row.get("tools") if row.get("tools") is not None else row.get("functions")


def _need(row: dict[str, Any], format: Format, *keys: str) -> None:
    missing = [key for key in keys if row.get(key) is None]
    if missing:
        raise RowError(f"{format} needs {NEEDED[format]}; missing: {', '.join(missing)}")
