"""A chat as every part of the toolkit sees it, whatever file format it came from.

Tool schemas and call arguments are plain JSON values here and JSON strings in files: never Arrow structs, because Arrow
would give every tool the union of all tools' fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
BUILTIN = "builtin:tools"
TEST_SET = "builtin:test"
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)

KINDS = ("single", "parallel", "multi_step", "clarify", "refuse", "irrelevance", "other")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes: a tool's name and its arguments by name."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `tool_calls` only on assistant turns; `name` is the tool that answered on tool turns.

    `trained` is False for an assistant turn that the data asks to read but not to train (OpenAI's `weight: 0`, the
    prompt of a prompt and its completion). Thoughts are a <think> block that leads an assistant's content.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation with the tools that were on offer.

    `tools` holds OpenAI function schemas: {"type": "function", "function": {"name", "description", "parameters"}}.
    `where` names the place it came from, as `file:line` or `builtin:tools#17`, for messages to the user.
    `meta` carries what evaluation needs (for built-in chats the seed of the simulated world, for example).
    """

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    kind: str = "other"
    source: str = ""
    where: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def split_thought(content: str) -> tuple[str, str]:
    """An assistant's text as (thought, answer). Only a <think> block that leads the text is a thought: an answer may
    mention </think> like any other word."""
    match = _THOUGHT.match(content)
    return (match[1], content[match.end() :]) if match else ("", content)
