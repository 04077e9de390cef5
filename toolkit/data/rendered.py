"""The calls in a rendered answer, read back as strictly as a runtime would: what is trained must be what was meant.

Chat templates write a tool's name between quotes as it is and the arguments through a filter of their own, so whether
the text is the call's JSON is known only when it is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolkit.chats import ToolCall
from toolkit.data.jsontext import STRICT

_MOST_FAILURES = 100  # braces that open no JSON: each may cost as much as the text is long
_NAMES = ("name", "tool", "function")
_ARGUMENTS = ("arguments", "parameters")


def written_calls(text: str) -> list[tuple[str, Any]]:
    """(name, arguments) of every object in `text` that is a call in JSON, in order; JSON-RPC's `params` count too."""
    found: list[tuple[str, Any]] = []
    position = text.find("{")
    failed = 0
    while position >= 0 and failed < _MOST_FAILURES:
        try:
            value, stop = STRICT.raw_decode(text, position)
        except (ValueError, RecursionError):
            stop = position + 1
            failed += 1
        else:
            if (call := _call(value)) is not None:
                found.append(call)
        position = text.find("{", stop)
    return found


def _call(value: Any) -> tuple[str, Any] | None:
    for inner in (value, value.get("params"), value.get("function")):
        if not isinstance(inner, dict):
            continue
        name = next((inner[key] for key in _NAMES if isinstance(inner.get(key), str)), None)
        arguments = next((inner[key] for key in _ARGUMENTS if isinstance(inner.get(key), dict)), None)
        if name is not None and arguments is not None:
            return name, arguments
    return None


def is_written(calls: Sequence[ToolCall], text: str) -> bool:
    """Whether the calls in `text` are `calls`: names, arguments and the types of their values. `text` is what a
    rendered turn holds after its thought and answer."""
    found = [_exact(name, arguments) for name, arguments in written_calls(text)]
    return found == [_exact(call.name, call.arguments) for call in calls]


def same_calls(made: Sequence[ToolCall], calls: Sequence[ToolCall]) -> bool:
    """Whether calls are the same, types of values included; the order of arguments does not count."""
    return [_sorted(call) for call in made] == [_sorted(call) for call in calls]


def _sorted(call: ToolCall) -> str:
    return json.dumps([call.name, call.arguments], ensure_ascii=False, sort_keys=True)


def _exact(name: str, arguments: Any) -> str:
    # as JSON, for which 1, 1.0 and true are three values
    return json.dumps([name, arguments], ensure_ascii=False)
