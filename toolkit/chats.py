"""A chat as every part of the toolkit sees it, whatever file format it came from.

Tool schemas and call arguments are plain JSON values here and JSON strings in files: never Arrow structs, because Arrow
would give every tool the union of all tools' fields.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
BUILTIN_PREFIX = "builtin:"
BUILTIN = f"{BUILTIN_PREFIX}tools"
TEST_SET = f"{BUILTIN_PREFIX}test"
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


class SealedChat(Chat):
    """A chat as bytes, opened when it is looked into: what only passes it on to another process copies it, no more."""

    __slots__ = ("_data", "_opened")
    _data: bytes
    _opened: Chat | None

    def __init__(self, data: bytes, kind: str, source: str, where: str) -> None:
        for name, value in (("_data", data), ("_opened", None), ("kind", kind), ("source", source), ("where", where)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, chat: Chat) -> SealedChat:
        """The same chat, sealed. What it holds has to be JSON values."""
        turns = [
            (one.role, one.content, [(call.name, call.arguments) for call in one.tool_calls], one.name, one.trained)
            for one in chat.turns
        ]
        data = json.dumps((turns, chat.tools, chat.meta), ensure_ascii=False, separators=(",", ":"))
        return cls(data.encode("utf-8", "surrogatepass"), chat.kind, chat.source, chat.where)

    def opened(self) -> Chat:
        if self._opened is not None:
            return self._opened
        turns, tools, meta = json.loads(self._data.decode("utf-8", "surrogatepass"))
        said = tuple(
            Turn(role, content, tuple(ToolCall(*call) for call in calls), name, trained)
            for role, content, calls, name, trained in turns
        )
        chat = Chat(said, tuple(tools), self.kind, self.source, self.where, meta)
        object.__setattr__(self, "_opened", chat)
        return chat

    turns = property(lambda self: self.opened().turns)
    tools = property(lambda self: self.opened().tools)
    meta = property(lambda self: self.opened().meta)

    def __reduce__(self) -> tuple[Any, ...]:
        return SealedChat, (self._data, self.kind, self.source, self.where)

    def __eq__(self, other: object) -> bool:
        return self.opened() == (other.opened() if isinstance(other, SealedChat) else other)

    def __hash__(self) -> int:
        return hash(self.opened())


def split_thought(content: str) -> tuple[str, str]:
    """An assistant's text as (thought, answer). Only a <think> block that leads the text is a thought: an answer may
    mention </think> like any other word."""
    match = _THOUGHT.match(content)
    return (match[1], content[match.end() :]) if match else ("", content)
