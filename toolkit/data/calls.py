"""How a chat's tools, calls and results are written: `native`, `json` or `jsonrpc`.

`native` hands tools and calls to the tokenizer's own chat template. The other two serve models whose template knows no
tools: the tools are described in the system turn, calls and results are plain text.

    json     {"tool": "get_weather", "arguments": {"city": "Oslo"}}          one call a line
    jsonrpc  {"jsonrpc": "2.0", "id": 1, "method": "tools/call",             several calls are a JSON-RPC batch (an
              "params": {"name": "get_weather", "arguments": {...}}}         array); ids count from 1 within a turn

Results are the tool's text as it is (`json`), or a JSON-RPC response {"jsonrpc": "2.0", "id": 1, "result": ...} whose
result is the tool's JSON value, or its text as a JSON string; a batch of calls is answered by an array of responses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.data.chats import Chat, ToolCall, Turn, split_thought
from toolkit.data.signatures import signature

CallFormat = Literal["native", "json", "jsonrpc"]
ToolPrompt = Literal["signature", "schema"]

_EXAMPLES = {
    "json": '{"tool": NAME, "arguments": {...}}, one call a line',
    "jsonrpc": '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": NAME, "arguments": {...}}}, '
    "several calls as a JSON array",
}
_INSTRUCTION = (
    "To use tools, answer only with {example}. "
    "If no tool fits, ask or answer in plain words; ask for what is missing; refuse what does harm."
)


@dataclass(frozen=True, slots=True)
class Messages:
    """A chat's turns as the chat template takes them.

    `pieces` says what was put in, in the order in which it appears: (role, text) with the roles of a chat and `tools`.
    An assistant's text is empty there: where it stands in the rendered text is found by its header.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    pieces: list[tuple[str, str]]


def tools_text(tools: Sequence[dict[str, Any]], call_format: CallFormat, tool_prompt: ToolPrompt) -> str:
    """What `json` and `jsonrpc` put into the system turn: the tools, and how to call them."""
    if tool_prompt == "signature":
        lines = [signature(tool) for tool in tools]
    else:
        lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
    return "Tools:\n" + "\n".join(lines) + "\n\n" + _INSTRUCTION.format(example=_EXAMPLES[call_format])


def write_calls(calls: Sequence[ToolCall], call_format: CallFormat) -> str:
    """Calls as the assistant writes them in `json` or `jsonrpc`."""
    if call_format == "json":
        return "\n".join(_dump({"tool": call.name, "arguments": call.arguments}) for call in calls)
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


def to_messages(
    chat: Chat,
    call_format: CallFormat,
    tool_prompt: ToolPrompt,
    *,
    tool_role: bool,
    reasoning: bool = False,
    turns: int | None = None,
) -> Messages:
    """The first `turns` turns of a chat (all when None) as messages for a chat template.

    With `tool_role` False results are written into user turns between <tool_response> marks, for templates that
    refuse the role. Blank space that leads an assistant's text is dropped: it would melt into the header's last token,
    and no prompt could lead to it. With `reasoning` (the template has a field for it) thought and answer are handed
    over apart where the template itself would cut the text in the wrong place.
    """
    taken = chat.turns[:turns]
    messages: list[dict[str, Any]] = []
    pieces: list[tuple[str, str]] = []
    native = call_format == "native"
    tools = list(chat.tools) if native and chat.tools else None
    if not native and chat.tools:
        own = taken[0].content if taken and taken[0].role == "system" else ""
        described = tools_text(chat.tools, call_format, tool_prompt)
        messages.append({"role": "system", "content": f"{own}\n\n{described}" if own else described})
        pieces += [("system", own), ("tools", described)]
        taken = taken[1:] if own or (taken and taken[0].role == "system") else taken
    index = 0
    while index < len(taken):
        turn = taken[index]
        if turn.role == "tool":
            stop = index
            while stop < len(taken) and taken[stop].role == "tool":
                stop += 1
            for name, content in _results(taken[index:stop], call_format):
                _add_result(messages, name, content, tool_role=tool_role)
                pieces.append(("tool", content))
            index = stop
            continue
        messages.append(_message(turn, call_format, reasoning=reasoning))
        pieces.append((turn.role, "" if turn.role == "assistant" else turn.content))
        index += 1
    return Messages(messages, tools, pieces)


def _message(turn: Turn, call_format: CallFormat, *, reasoning: bool) -> dict[str, Any]:
    message = _written(turn, call_format)
    if reasoning and turn.role == "assistant":
        thought, answer = split_thought(message["content"])
        if "</think>" in answer or "<think>" in thought:
            message |= {"content": answer.lstrip(), "reasoning_content": thought.strip()}
    return message


def _written(turn: Turn, call_format: CallFormat) -> dict[str, Any]:
    if turn.role != "assistant":
        return {"role": turn.role, "content": turn.content}
    content = turn.content.lstrip()
    if not turn.tool_calls:
        return {"role": "assistant", "content": content}
    if call_format == "native":
        calls = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
        return {"role": "assistant", "content": content, "tool_calls": calls}
    written = write_calls(turn.tool_calls, call_format)
    return {"role": "assistant", "content": f"{content}\n{written}" if content else written}


def _results(turns: Sequence[Turn], call_format: CallFormat) -> list[tuple[str | None, str]]:
    """(tool's name, text) of each message that a run of tool turns becomes."""
    if call_format != "jsonrpc":
        return [(turn.name, turn.content) for turn in turns]
    responses = [
        f'{{"jsonrpc": "2.0", "id": {number}, "result": {_as_json(turn.content)}}}'
        for number, turn in enumerate(turns, 1)
    ]
    return [(turns[0].name, responses[0] if len(responses) == 1 else f"[{', '.join(responses)}]")]


def _add_result(messages: list[dict[str, Any]], name: str | None, content: str, *, tool_role: bool) -> None:
    if tool_role:
        messages.append({"role": "tool", "content": content, **({"name": name} if name else {})})
        return
    marked = f"<tool_response>\n{content}\n</tool_response>"
    # One user turn for a turn's results: templates that refuse the role often want user and assistant to alternate.
    if messages and messages[-1]["role"] == "user" and messages[-1]["content"].endswith("</tool_response>"):
        messages[-1]["content"] += f"\n{marked}"
    else:
        messages.append({"role": "user", "content": marked})


def _as_json(content: str) -> str:
    """The tool's JSON exactly as it wrote it, or its text as a JSON string."""
    try:
        json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _dump(content)
    return content.strip()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is Python's, not JSON's")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
