"""A chat as every part of the toolkit sees it, whatever file format it came from.

Tool schemas and call arguments are plain JSON values here and JSON strings in files: never Arrow structs, because Arrow
would give every tool the union of all tools' fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

KINDS = ("single", "parallel", "multi_step", "clarify", "refuse", "irrelevance", "other")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes: a tool's name and its arguments by name."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `tool_calls` only on assistant turns; `name` is the tool that answered on tool turns."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None


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
