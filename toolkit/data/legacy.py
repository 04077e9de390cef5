"""How chats of `json` and `jsonrpc` were rendered before a call format was a chat template.

Run folders from then keep no template: their chats must be written as they were trained, word for word. The tools and
how to call them were put into the system turn here, calls and results became plain text, and the tokenizer's own
template, which knew of none of it, wrote the turns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolkit.chats import Chat, Turn
from toolkit.data.calls import Messages, assistant_text
from toolkit.data.lenient_json import STRICT
from toolkit.data.signatures import signature
from toolkit.data.template import CallFormat, Rendering, ToolPrompt

_EXAMPLES = {
    "json": '{"tool": NAME, "arguments": {...}}, one call a line',
    "jsonrpc": '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": NAME, "arguments": {...}}}, '
    "several calls as a JSON array",
}
_INSTRUCTION = (
    "To use tools, answer only with {example}. "
    "If no tool fits, ask or answer in plain words; ask for what is missing; refuse what does harm."
)


def tools_text(tools: Sequence[dict[str, Any]], call_format: CallFormat, tool_prompt: ToolPrompt) -> str:
    """What was put into the system turn: the tools, and how to call them."""
    if tool_prompt == "signature":
        lines = [signature(tool) for tool in tools]
    else:
        lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in tools]
    return "Tools:\n" + "\n".join(lines) + "\n\n" + instruction(call_format)


def instruction(call_format: CallFormat) -> str:
    """The sentences after the tools."""
    return _INSTRUCTION.format(example=_EXAMPLES[call_format])


def to_messages(chat: Chat, rendering: Rendering, *, tool_role: bool, turns: int | None = None) -> Messages:
    """The first `turns` turns of a chat (all when None) as messages for a chat template that knows of no tools.

    With `tool_role` False results are written into user turns between <tool_response> marks.
    """
    call_format = rendering.call_format
    taken = chat.turns[:turns]
    messages: list[dict[str, Any]] = []
    pieces: list[tuple[str, str]] = []
    if chat.tools:
        own = taken[0].content if taken and taken[0].role == "system" else ""
        described = tools_text(chat.tools, call_format, rendering.tool_prompt)
        messages.append({"role": "system", "content": f"{own}\n\n{described}" if own else described})
        pieces += [("system", own), ("tools", described)]
        taken = taken[1:] if taken and taken[0].role == "system" else taken
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
        if turn.role == "assistant":
            messages.append({"role": "assistant", "content": assistant_text(turn, call_format)})
        else:
            messages.append({"role": turn.role, "content": turn.content})
        pieces.append((turn.role, "" if turn.role == "assistant" else turn.content))
        index += 1
    return Messages(messages, None, pieces)


def _results(turns: Sequence[Turn], call_format: CallFormat) -> list[tuple[str | None, str]]:
    """(tool's name, text) of each message that a run of tool turns became."""
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
        STRICT.decode(content)
    except (ValueError, RecursionError):
        return json.dumps(content, ensure_ascii=False)
    return content.strip()
