"""What a chat template writes around tools, calls and results, found by rendering small chats and cutting them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from toolkit.data.markup import Markup, Message, render
from toolkit.errors import DataError

_SYSTEM, _USER, _SAID, _LAST = "obsidian nine", "quartz one", "amber two", "copper four"
_NAMES = ("probe_slate", "probe_flint")
_RESULTS = ('granite "five"', 'gneiss "six"')


def _tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"stone": {"type": "string"}}, "required": ["stone"]}
    return {"type": "function", "function": {"name": name, "description": f"Of {name}.", "parameters": parameters}}


def _call(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": {"stone": f"a {name}"}}}


_TOOLS = [_tool(name) for name in _NAMES]
_ASKED: Message = {"role": "user", "content": _USER}


@dataclass(frozen=True, slots=True)
class Tools:
    """Tools in the system turn: what stands before the first one, after the user's own system text or `alone`; around
    each tool's function as JSON, `between` two, and at the `end`. `schemas`: they are written as JSON."""

    after_system: str
    alone: str
    before: str
    behind: str
    between: str
    end: str
    schemas: bool


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls in an assistant's turn: what parts them from text, and stands before a name, between it and the arguments
    (JSON), behind them and between two calls.

    `several`: two calls are written as one is, one after the other. `named`: as an object with the keys `name` and
    `arguments` or `parameters`, or one inside another. `nested`: the arguments stand deeper than in the call's object.
    """

    after_text: str
    before: str
    middle: str
    behind: str
    between: str
    several: bool
    named: bool
    nested: bool


@dataclass(frozen=True, slots=True)
class Results:
    """Results after calls: what stands before the first, between two and after the last; `as_json`: as JSON strings."""

    before: str
    between: str
    after: str
    as_json: bool


def read_tools(tokenizer: Any) -> Tools:
    """Raises `DataError` where the template does not write tools into a system turn."""
    own = render(tokenizer, [{"role": "system", "content": _SYSTEM}, _ASKED], tools=_TOOLS)
    alone = render(tokenizer, [_ASKED], tools=_TOOLS)
    spans = [_tool_at(own, tool) for tool in _TOOLS]
    (start, first, last, stop), (next_start, *_) = spans
    system = own.find(_SYSTEM)
    if not 0 <= system < start:
        raise DataError("the chat template does not write tools after the system text")
    opened = own[:system]
    first_alone = _tool_at(alone, _TOOLS[0])[0]
    turn_end = own.index("<|im_end|>", spans[1][3])
    return Tools(
        after_system=own[system + len(_SYSTEM) : start],
        alone=alone[:first_alone].removeprefix(opened),
        before=own[start:first],
        behind=own[last:stop],
        between=own[stop:next_start],
        end=own[spans[1][3] : turn_end],
        schemas=_is_json(own[first:last]),
    )


def read_calls(tokenizer: Any, markup: Markup) -> Calls:
    """Raises `DataError` where the template does not write calls, or not as a name followed by arguments."""
    one, two = (_turn(tokenizer, markup, "", _NAMES[:count]) for count in (1, 2))
    said = _turn(tokenizer, markup, _SAID, _NAMES)
    name, (start, stop) = _name_at(one, _NAMES[0]), _json_at(one, _call(_NAMES[0])["function"]["arguments"])
    if not 0 <= name < start:
        raise DataError("the chat template does not write a call as a name and its arguments")
    before, middle, behind = one[:name], one[name + len(_NAMES[0]) : start], one[stop:]
    second, (_, first_stop) = _name_at(two, _NAMES[1]), _json_at(two, _call(_NAMES[0])["function"]["arguments"])
    inner = two[first_stop:second]
    several = two.startswith(before) and inner.startswith(behind) and inner.endswith(before)
    between = inner[len(behind) : len(inner) - len(before)] if several else "\n"
    calls = said.rfind(two)
    after_text = said[len(_SAID) : calls] if said.startswith(_SAID) and calls >= 0 else ""
    return Calls(after_text, before, middle, behind, between, several, *_shape(one))


def read_results(tokenizer: Any, markup: Markup) -> Results:
    """Raises `DataError` where the template does not write results."""
    one, two = (_after_calls(tokenizer, markup, count) for count in (1, 2))
    as_json = all(json.dumps(result) in two for result in _RESULTS)
    told = [json.dumps(result) if as_json else result for result in _RESULTS]
    if any(result not in two for result in told):
        raise DataError("the chat template does not write tool results")
    first, second = two.index(told[0]), two.index(told[1])
    before, after = one[: one.index(told[0])], one[one.index(told[0]) + len(told[0]) :]
    between = two[first + len(told[0]) : second]
    if two[:first] != before or two[second + len(told[1]) :] != after:  # a list: here one result after the other
        between = after + before
    return Results(before, between, after, as_json)


def _turn(tokenizer: Any, markup: Markup, text: str, names: tuple[str, ...]) -> str:
    """An assistant's turn between its header and its end."""
    return _behind_header(tokenizer, markup, text, names).partition(markup.end)[0]


def _after_calls(tokenizer: Any, markup: Markup, count: int) -> str:
    """What stands between the end of a turn with calls and the next assistant's header."""
    return _behind_header(tokenizer, markup, "", _NAMES[:count]).partition(f"{markup.end}\n")[2]


def _behind_header(tokenizer: Any, markup: Markup, text: str, names: tuple[str, ...]) -> str:
    """A turn with calls and what comes after it, to the next assistant's header."""
    turn = {"role": "assistant", "content": text, "tool_calls": [_call(name) for name in names]}
    given = [{"role": "tool", "name": name, "content": result} for name, result in zip(names, _RESULTS, strict=False)]
    return render(tokenizer, [_ASKED, turn, *given, _answer()], tools=_TOOLS).split(markup.header)[1]


def _answer() -> Message:
    return {"role": "assistant", "content": _LAST}


def _tool_at(text: str, tool: dict[str, Any]) -> tuple[int, int, int, int]:
    """(start, its function's start, the function's end, end) of a tool in a text; a line where it is no JSON."""
    name = text.find(tool["function"]["name"])
    if name < 0:
        raise DataError("the chat template does not describe the tools that it is given")
    try:
        inner = _json_at(text, tool["function"])
    except DataError:
        line = text.rfind("\n", 0, name) + 1, text.find("\n", name) % (len(text) + 1)
        return line[0], *line, line[1]
    try:
        outer = _json_at(text, tool)
    except DataError:
        outer = inner
    return outer[0], *inner, outer[1]


def _json_at(text: str, value: Any) -> tuple[int, int]:
    """Where a text holds `value` as JSON. Raises `DataError` where it does not."""
    at = text.find("{")
    while at >= 0:
        try:
            found, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            found, end = None, at
        if found == value:
            return at, end
        at = text.find("{", at + 1)
    raise DataError("the chat template does not write JSON where it is looked for")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _name_at(text: str, name: str) -> int:
    return text.find(name)


def _shape(call: str) -> tuple[bool, bool]:
    """`Calls.named` and `Calls.nested` of a call's text."""
    at = call.find("{")
    try:
        found, _ = json.JSONDecoder().raw_decode(call, max(0, at))
    except ValueError:
        return False, False
    arguments = _call(_NAMES[0])["function"]["arguments"]
    nested = isinstance(found, dict) and arguments not in found.values()
    objects = [found]
    while objects:
        one = objects.pop(0)
        if isinstance(one, dict):
            if "name" in one:
                return one.get("arguments", one.get("parameters")) == arguments, nested
            objects += one.values()
    return False, nested
