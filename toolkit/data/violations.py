"""Calls held against the schemas of the tools that were on offer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from toolkit.chats import Chat, ToolCall
from toolkit.data.schema_checks import UncheckedError, checker
from toolkit.data.schema_rules import check_schema
from toolkit.errors import Problem, did_you_mean
from toolkit.words import counted, typed

_ESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\\x([0-9a-f]{2})")


def violations(chat: Chat) -> list[Problem]:
    """What is wrong with a chat's calls: unknown tool, missing or unknown argument, wrong type or value, results that
    don't match the calls before them. Also tools whose schema is none, and two tools of one name."""
    found: list[str] = []
    schemas: dict[str, dict[str, Any]] = {}
    for tool in chat.tools:
        function = tool["function"]
        if function["name"] in schemas:
            found.append(f"two tools are called {function['name']}")
        schemas[function["name"]] = function.get("parameters") or {}
        if reason := check_schema(schemas[function["name"]]):
            found.append(f"tool {function['name']}: its parameters are no JSON schema: {reason}")
    for number, turn in enumerate(chat.turns, 1):
        for call in turn.tool_calls:
            found += [f"turn {number}: {problem}" for problem in call_problems(call, schemas)]
    found += _unmatched_results(chat)
    return [Problem(chat.where, message) for message in found]


def broken_rows(count: int, chats: int, first: str) -> str:
    """One line about `count` of `chats` that have violations, of which `first` is the first."""
    listed = f"`{typed('data', 'check')}` lists {'it' if count == 1 else 'them'}"
    return f"{count:,} of {counted(chats, 'row')} {'is' if count == 1 else 'are'} not ok ({listed}): {first}"


def call_problems(call: ToolCall, schemas: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with one call; `schemas` has the parameters schema of each tool on offer."""
    if call.name not in schemas:
        return [f"calls unknown tool {call.name}{did_you_mean(call.name, schemas)}"]
    schema = schemas[call.name]
    try:
        held = checker(schema)
    except UncheckedError:
        return []  # of the tool, and said there
    known = schema.get("properties") or {}
    found = []
    if schema and schema.get("additionalProperties") in (None, False) and not schema.get("patternProperties"):
        found = [
            f"{call.name}: unknown argument {name}{did_you_mean(name, known)}"
            for name in call.arguments
            if name not in known
        ]
    try:
        errors = held.errors(call.arguments)
    except UncheckedError as reason:
        return [*found, f"{call.name}: the arguments can't be held against the schema: {reason}"]
    for error in errors:
        place = ".".join(str(step) for step in error.absolute_path)
        if error.validator == "required":
            found.append(f"{call.name}: missing argument {f'{place}.' if place else ''}{error.validator_value}")
        elif error.validator != "additionalProperties" or place:
            found.append(f"{call.name}: {f'argument {place}: ' if place else ''}{_shortened(error.message)}")
    return found


def _unmatched_results(chat: Chat) -> Iterator[str]:
    asked = answered = 0
    for number, turn in enumerate(chat.turns, 1):
        if turn.role == "tool":
            answered += 1
            if answered > asked:
                yield f"turn {number}: a tool result without a call before it"
            continue
        if 0 < answered < asked:
            yield f"turn {number}: {asked} calls before it, but {answered} results"
        if turn.role == "assistant" and not turn.tool_calls and not answered:
            continue  # text between a call and its result
        asked, answered = len(turn.tool_calls), 0


def _shortened(text: str, most: int = 160) -> str:
    # jsonschema quotes values as Python does, and all else here is written as JSON does
    line = _ESCAPED.sub(r"\1\\u00\2", " ".join(text[: 4 * most].split()))
    return line if len(line) <= most else line[: most - 3] + "..."
