"""A chat's turns as messages for a chat template, and calls as an assistant writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.chats import Chat, ToolCall, Turn, split_thought


@dataclass(frozen=True, slots=True)
class Messages:
    """A chat's turns as the chat template takes them.

    `pieces` says what was put in, in the order in which it appears: (role, text) with the roles of a chat and `tools`.
    An assistant's text is empty there: where it stands in the rendered text is found by its header.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    pieces: list[tuple[str, str]]


def to_messages(chat: Chat, turns: int | None = None, *, reasoning: bool = False, call_ids: bool = False) -> Messages:
    """The first `turns` turns of a chat (all when None) and its tools, in OpenAI's shape.

    Blank space that leads an assistant's text is dropped: it would melt into the header's last token, and no prompt
    could lead to it. With `reasoning` (the template has a field for it) thought and answer are handed over apart where
    the template itself would cut the text in the wrong place. With `call_ids` calls and results have ids, as Mistral's
    templates demand.
    """
    taken = chat.turns[:turns]
    pieces = [(turn.role, "" if turn.role == "assistant" else turn.content) for turn in taken]
    messages = [_message(turn, reasoning=reasoning) for turn in taken]
    return Messages(with_call_ids(messages) if call_ids else messages, list(chat.tools) or None, [*pieces])


def with_call_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with an id of nine digits at each call, and at its result, in their order."""
    found, waiting, count = [], [], 0
    for message in messages:
        if calls := message.get("tool_calls"):
            waiting = [f"{count + number:09}" for number in range(1, len(calls) + 1)]
            count += len(calls)
            message = {**message, "tool_calls": [{**call, "id": id} for call, id in zip(calls, waiting, strict=True)]}
        elif message["role"] == "tool":
            message = {**message, "tool_call_id": waiting.pop(0) if waiting else f"{count:09}"}
        found.append(message)
    return found


def _message(turn: Turn, *, reasoning: bool) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "tool", "content": turn.content, **({"name": turn.name} if turn.name else {})}
    if turn.role != "assistant":
        return {"role": turn.role, "content": turn.content}
    message: dict[str, Any] = {"role": "assistant", "content": turn.content.lstrip()}
    if reasoning:
        thought, answer = split_thought(message["content"])
        if "</think>" in answer or "<think>" in thought or (thought and "</think>" in _dump(_arguments(turn))):
            message |= {"content": answer.lstrip(), "reasoning_content": thought.strip()}
    if turn.tool_calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    return message


def _arguments(turn: Turn) -> list[Any]:
    return [call.arguments for call in turn.tool_calls]


def assistant_text(turn: Turn, call_format: str) -> str:
    """An assistant's turn as the templates of `toolkit.data.template` write it; `native` is shown as `hermes`."""
    content = turn.content.lstrip()
    if not turn.tool_calls:
        return content
    written = write_calls(turn.tool_calls, call_format)
    return f"{content}\n{written}" if content else written


def write_calls(calls: Sequence[ToolCall], call_format: str) -> str:
    """Calls as the assistant writes them; what is neither `json`, `jsonrpc` nor `llama` is shown as `hermes`."""
    if call_format == "json":
        return "\n".join(_dump({"tool": call.name, "arguments": call.arguments}) for call in calls)
    if call_format == "llama":
        return "\n".join(_dump({"name": call.name, "parameters": call.arguments}) for call in calls)
    if call_format != "jsonrpc":
        written = [_dump({"name": call.name, "arguments": call.arguments}) for call in calls]
        return "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in written)
    requests = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": call.name, "arguments": call.arguments},
        }
        for number, call in enumerate(calls, 1)
    ]
    return _dump(requests[0] if len(requests) == 1 else requests)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
