"""Which calls are right at a turn, and how far others are.

A call whose arguments hold a JSON-RPC 2.0 request has an id that is the client's to choose (section 4 of
https://www.jsonrpc.org/specification): it says nothing of what is asked for, and no answer can know it. So any id of
the same type is right, but where the chat names the one to take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toolkit.chats import BUILTIN, TEST_SET, Chat, ToolCall
from toolkit.evaluation.bfcl import Answer
from toolkit.evaluation.same_json import same_but_case, same_json
from toolkit.world import either_way

_NAMED_ID = re.compile(r"\bid\b\W*(?:(?:is|of|as|to|number|no)\b)?\W*([\w-]+)", re.IGNORECASE)


class Wanted(Protocol):
    """A call that is expected: which calls are right, and how far others are."""

    @property
    def name(self) -> str: ...

    @property
    def needed(self) -> int:
        """How many arguments must be there."""
        ...

    def found(self, call: ToolCall) -> int:
        """How many of those a call has right."""
        ...

    def right(self, call: ToolCall) -> int:
        """How many of a call's arguments are right."""
        ...

    def accepts(self, call: ToolCall) -> bool: ...

    def accepts_but_case(self, call: ToolCall) -> bool:
        """Whether it does where case and outer spaces of texts do not count."""
        ...


@dataclass(frozen=True, slots=True)
class ThisCall:
    """Wants one call to the letter, but for two arguments of it (`swap`) that may be exchanged."""

    call: ToolCall
    swap: tuple[str, ...] = ()

    @classmethod
    def of_world(cls, call: ToolCall) -> ThisCall:
        """The call of a built-in chat, where a distance from A to B is that from B to A."""
        return cls(call, either_way(call.name))

    @property
    def ways(self) -> list[dict[str, Any]]:
        """The arguments that are right."""
        arguments = self.call.arguments
        if len(self.swap) != 2 or not arguments.keys() >= set(self.swap):
            return [arguments]
        one, other = self.swap
        return [arguments, {**arguments, one: arguments[other], other: arguments[one]}]

    @property
    def name(self) -> str:
        return self.call.name

    @property
    def needed(self) -> int:
        return len(self.call.arguments)

    def found(self, call: ToolCall) -> int:
        return max(
            sum(key in call.arguments and same_json(value, call.arguments[key]) for key, value in way.items())
            for way in self.ways
        )

    def right(self, call: ToolCall) -> int:
        return self.found(call)

    def accepts(self, call: ToolCall) -> bool:
        return self.name == call.name and any(same_json(way, call.arguments) for way in self.ways)

    def accepts_but_case(self, call: ToolCall) -> bool:
        return self.name == call.name and any(same_but_case(way, call.arguments) for way in self.ways)


@dataclass(frozen=True, slots=True)
class AnyId:
    """Wants a call with whatever ids its JSON-RPC requests have, but for those that the chat names (`named`, as text).

    Raises nothing; a request without an id, a notification, stays one: an answer that adds an id is not the same.
    """

    wanted: ThisCall
    named: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def needed(self) -> int:
        return self.wanted.needed

    def found(self, call: ToolCall) -> int:
        return self._free(self.wanted).found(self._freed(call))

    def right(self, call: ToolCall) -> int:
        return self.found(call)

    def accepts(self, call: ToolCall) -> bool:
        return self._free(self.wanted).accepts(self._freed(call))

    def accepts_but_case(self, call: ToolCall) -> bool:
        return self._free(self.wanted).accepts_but_case(self._freed(call))

    def _free(self, wanted: ThisCall) -> ThisCall:
        return ThisCall(self._freed(wanted.call), wanted.swap)

    def _freed(self, call: ToolCall) -> ToolCall:
        return ToolCall(call.name, without_ids(call.arguments, self.named))


def without_ids(value: Any, named: frozenset[str] = frozenset()) -> Any:
    """A JSON value whose JSON-RPC requests, at any depth, have "" or 0 for an id that is text or a number, but where
    `named` has it. True, null, lists and objects are no such ids, and stay."""
    if isinstance(value, Mapping):
        freed = {key: without_ids(inner, named) for key, inner in value.items()}
        if _has_id(value) and str(value["id"]) not in named:
            freed["id"] = "" if isinstance(value["id"], str) else 0
        return freed
    return [without_ids(inner, named) for inner in value] if isinstance(value, list) else value


def _has_id(value: Mapping[str, Any]) -> bool:
    """Whether it is a request of JSON-RPC 2.0 with an id that a client may choose."""
    request = value.get("jsonrpc") == "2.0" and isinstance(value.get("method"), str)
    return request and isinstance(value.get("id"), str | int | float) and not isinstance(value["id"], bool)


def _holds_request(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _has_id(value) or any(map(_holds_request, value.values()))
    return isinstance(value, list) and any(map(_holds_request, value))


def alternatives(chat: Chat, turn: int) -> list[Sequence[Wanted]]:
    """The lists of calls that are right at a turn: the chat's own, and those that `meta["alternatives"]` accepts, or
    what a BFCL row lists.

    `alternatives` is {turn index as text: [[{"name": ..., "arguments": {...}}, ...], ...]}.
    """
    if listed := chat.meta.get("bfcl"):
        return [[Answer(one) for one in listed]]
    accepted = chat.meta.get("alternatives", {}).get(str(turn), [])
    others = [[ToolCall(call["name"], call["arguments"]) for call in calls] for calls in accepted]
    if chat.source in (BUILTIN, TEST_SET):
        return [
            [ThisCall.of_world(call) for call in chat.turns[turn].tool_calls],
            *([ThisCall(call) for call in one] for one in others),
        ]
    return [_any_id(chat, turn, calls) for calls in (chat.turns[turn].tool_calls, *others)]


def _any_id(chat: Chat, turn: int, calls: Sequence[ToolCall]) -> list[Wanted]:
    """A chat's calls, each to the letter but for ids that nothing before the turn names."""
    if not any(_holds_request(call.arguments) for call in calls):
        return [ThisCall(call) for call in calls]
    before = " ".join(earlier.content for earlier in chat.turns[:turn])
    named = frozenset(_NAMED_ID.findall(before))
    return [AnyId(ThisCall(call), named) for call in calls]


def same_calls(expected: Sequence[ToolCall], generated: Sequence[ToolCall]) -> bool:
    """Whether both make the same calls, in any order."""
    return all_accepted([ThisCall(call) for call in expected], generated)


def all_accepted(expected: Sequence[Wanted], generated: Sequence[ToolCall], *, but_case: bool = False) -> bool:
    """Whether there is one call for each that is wanted, in any order, and no other."""
    if len(expected) != len(generated):
        return False
    accepting = [one.accepts_but_case if but_case else one.accepts for one in expected]
    fitting = [[index for index, call in enumerate(generated) if accepts(call)] for accepts in accepting]
    holder: dict[int, int] = {}  # generated call -> the expected one that it stands for

    def place(wanted: int, tried: set[int]) -> bool:
        for index in fitting[wanted]:
            if index not in tried:
                tried.add(index)
                if index not in holder or place(holder[index], tried):
                    holder[index] = wanted
                    return True
        return False

    return all(place(wanted, set()) for wanted in range(len(expected)))
