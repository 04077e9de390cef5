"""Reads the tool calls in what a model wrote: one parser a call format.

    native   as the model's own template writes them: the forms of `toolkit.data.call_forms` by their marks, else hermes
    hermes   <tool_call>{"name": ..., "arguments": {...}}</tool_call>, as Qwen and Hermes models write it
    llama    {"name": ..., "parameters": {...}}, as Llama 3 writes it
    json     {"tool": ..., "arguments": {...}}, one a line
    jsonrpc  {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ..., "arguments": {}}}, or a batch

All are tolerant: prose and code fences around a call, other usual keys (`name`, `tool`, `function`; `arguments`,
`parameters`, ...), arguments as a JSON string, another format's way of writing a call, trailing commas, raw line breaks
in strings, a missing closing mark. What was tolerated is reported: in `problems`, in `valid_json` (a strict JSON parser
reads every call) and in `in_format` (the calls are written as the format says). Nothing is guessed: a call whose
brackets are not closed is not completed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.chats import ToolCall
from toolkit.data.call_forms import FORMS, Form, NotRead, Tools
from toolkit.data.call_objects import (
    NO_CALL,
    call_of,
    hermes_problem,
    items_of,
    json_problem,
    jsonrpc_problem,
    llama_problem,
)
from toolkit.data.lenient_json import LOOKS_LIKE_CALL, decode, end_of_value, why


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a generated turn says.

    calls: the calls that could be read, in order.
    text: what is left without thinking, calls and their marks.
    has_call: a call was made or attempted.
    valid_json: there is a call and a strict JSON parser reads each of them.
    in_format: there is a call and each is written as the call format says.
    problems: what is wrong, or was tolerated, each once.
    """

    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    has_call: bool = False
    valid_json: bool = False
    in_format: bool = False
    problems: tuple[str, ...] = ()


_THINKING = re.compile(r"\s*<think>(.*?)(</think>|\Z)", re.DOTALL)
_MARK = "<tool_call>"
_CLOSING_MARK = re.compile(r"\s*</tool_call>")
_OPENER = re.compile(r"[{\[]|<tool_call>")
_EMPTY_FENCE = re.compile(r"```[\w+-]*\s*(?:```|\Z)")
_WHOLE_FENCE = re.compile(r"```[\w+-]*\s*(.*?)\s*```", re.DOTALL)
_NEXT_VALUE = re.compile(r"\n[{\[]|<tool_call>")
_AFTER_VALUE = re.compile(r"[ \t]*([}\]]+)|\s*[,;](?=\s*\{)")
_BRACKETS = re.compile(r"(?:[{\[]\s*){32,}")


def parse(text: str, call_format: str, tools: Tools = ()) -> Parsed:
    """Read a generated turn; `tools` that were on offer tell types where a form does not.

    Never raises on any text; `KeyError` when there is no such call format.
    """
    if call_format in FORMS:
        return _parse_form(text, FORMS[call_format], tools)
    if call_format == "native":
        form = next((form for form in FORMS.values() if form.mark.search(text)), None)
        if form is not None:
            return _parse_form(text, form, tools)
    return PARSERS[call_format](text)


def parse_hermes(text: str) -> Parsed:
    """Calls between <tool_call> marks."""
    return _Reader(text, "hermes", hermes_problem).read()


def parse_llama(text: str) -> Parsed:
    """A call as an object with `name` and `parameters`, which may stand behind <|python_tag|>."""
    return _Reader(text.replace("<|python_tag|>", "", 1), "llama", llama_problem).read()


def _parse_form(text: str, form: Form, tools: Tools) -> Parsed:
    """What stands before a mark is said. Without a mark: other formats' calls, none of them in the format."""
    start = 0
    while thinking := _THINKING.match(text, start):
        start = thinking.end()
    if form.mark.search(text, start) is None:
        return _Reader(text, form.name, lambda item, marked: f"a call without {form.opener}").read()
    calls: list[ToolCall] = []
    said: list[str] = []
    problems: dict[str, None] = {}
    attempts = 0
    while True:
        mark = form.mark.search(text, start)
        _, thought, after = text[start : mark.start() if mark else None].rpartition("</think>")
        if thought:  # the end of thinking that the prompt had opened makes all before it thinking
            calls, said, problems, attempts = [], [], {}, 0
        said.append(after)
        if mark is None:
            break
        attempts += 1
        try:
            made, start = form.read(text, mark.end(), tools)
            calls += made
        except NotRead as error:
            problems[f"after {form.opener}: {error}"] = None
            following = form.mark.search(text, mark.end() + 1)
            start = following.start() if following else len(text)
    fine = bool(calls) and not problems
    rest = re.sub(r"\n\s*\n+", "\n\n", "".join(said)).strip()
    return Parsed(tuple(calls), rest, attempts > 0, fine, fine, tuple(problems))


def parse_json(text: str) -> Parsed:
    """Calls as {"tool", "arguments"} objects, one a line, in a list or in a fence."""
    return _Reader(text, "json", json_problem).read()


def parse_jsonrpc(text: str) -> Parsed:
    """Calls as JSON-RPC 2.0 requests of `tools/call`, or an array of them."""
    return _Reader(text, "jsonrpc", jsonrpc_problem).read()


PARSERS: Mapping[str, Callable[[str], Parsed]] = {
    "native": parse_hermes,
    "hermes": parse_hermes,
    "llama": parse_llama,
    "json": parse_json,
    "jsonrpc": parse_jsonrpc,
}


@dataclass(slots=True)
class _Reader:
    """One pass over a text. `style` says what is not in the format about a call's JSON, or an empty string."""

    source: str
    call_format: str
    style: Callable[[dict[str, Any], bool], str]
    calls: list[ToolCall] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    problems: dict[str, None] = field(default_factory=dict)
    attempts: int = 0
    valid: bool = True
    in_format: bool = True

    def read(self) -> Parsed:
        text = self.source
        position = 0
        while thinking := _THINKING.match(text, position):  # only at the start: arguments may hold these words
            position = thinking.end()
            if not thinking[2]:
                self._note("the thinking never ends")
        while match := _OPENER.search(text, position):
            self._say(text[position : match.start()])
            position = self._marked(text, match.end()) if match[0] == _MARK else self._bare(text, match.start())
        self._say(text[position:])
        rest = "".join(self.prose)
        if self.attempts:
            rest = re.sub(r"\n\s*\n+", "\n\n", _EMPTY_FENCE.sub("", rest))
        rest = rest.strip()
        called = self.attempts > 0
        return Parsed(
            calls=tuple(self.calls),
            text=rest,
            has_call=called,
            valid_json=called and self.valid,
            in_format=called and self.in_format and self.valid,
            problems=tuple(self.problems),
        )

    def _say(self, text: str) -> None:
        """Keep prose. The end of thinking that the prompt had opened makes all before it thinking."""
        _, end, after = text.rpartition("</think>")
        if end:
            self.calls, self.prose, self.problems = [], [], {}
            self.attempts, self.valid, self.in_format = 0, True, True
        self.prose.append(after)

    def _note(self, problem: str) -> None:
        self.problems[problem] = None

    def _deviation(self, problem: str) -> None:
        self.in_format = False
        self._note(problem)

    def _broken(self, problem: str) -> None:
        self.attempts += 1
        self.valid = False
        self._note(problem)

    def _marked(self, text: str, position: int) -> int:
        """Read what follows <tool_call>; returns where to go on."""
        values = 0
        while True:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            found = decode(text, start) if text.startswith(("{", "["), start) else None
            if found is None:
                break
            value, position, mended = found
            values += 1
            self._take_marked(value, mended)
        if values > 1:
            self._deviation("several calls between one pair of <tool_call> marks")
        closing = _CLOSING_MARK.match(text, position)
        if values and closing:
            return closing.end()
        if values and not text[position:].strip():
            self._note("no closing </tool_call>")
            return len(text)
        stop = text.find("</tool_call>", position)
        inside = text[position:stop].strip() if stop >= 0 else text[position:].strip()
        end = stop + len("</tool_call>") if stop >= 0 else len(text)
        if not values and (fence := _WHOLE_FENCE.fullmatch(inside)) and (found := decode(fence[1], 0)):
            self._deviation("a code fence between <tool_call> marks")
            self._take_marked(found[0], found[2])
        else:
            self._broken(f"between <tool_call> marks: not JSON: {why(inside)}")
        return end

    def _take_marked(self, value: Any, mended: str) -> None:
        if isinstance(value, list):
            self._deviation("a list between <tool_call> marks")
        if not self._take(value, mended, marked=True):
            self.attempts += 1
            self._deviation("between <tool_call> marks: an object without a name")

    def _bare(self, text: str, start: int) -> int:
        """Read the JSON value, if it is one, that begins at a bracket; returns where to go on."""
        found = decode(text, start)
        if found is not None:
            value, stop, mended = found
            if not self._take(value, mended, marked=False):
                self.prose.append(text[start:stop])
            elif after := _AFTER_VALUE.match(text, stop):
                if after[1]:
                    self.valid = False
                    self._note("a closing bracket too many")
                else:
                    self._deviation("a comma between calls")
                return after.end()
            return stop
        if not LOOKS_LIKE_CALL.match(text, start):
            # A long run of brackets is degenerate text; trying each of them would take quadratic time.
            run = _BRACKETS.match(text, start)
            stop = run.end() if run else start + 1
            self.prose.append(text[start:stop])
            return stop
        stop = end_of_value(text, start)
        if another := _NEXT_VALUE.search(text, start, stop):
            stop = another.start()
        self._broken(f"not JSON: {why(text[start:stop])}")
        return stop

    def _take(self, value: Any, mended: str, *, marked: bool) -> bool:
        """Note the calls in a JSON value; False when it is no call."""
        items, wrapped = items_of(value)
        found = [call_of(item, marked=marked) for item in items]
        if all(one == NO_CALL for one in found):
            return False
        if wrapped:
            self._deviation("an object around the list of calls")
        for item, one in zip(items, found, strict=True):
            self.attempts += 1
            if one.call is not None:
                self.calls.append(one.call)
            self.valid = self.valid and one.valid
            if one == NO_CALL:
                self._deviation("an item of the list is no call")
                continue
            for note in (one.problem, self.style(item, marked)):
                if note:
                    self._deviation(note)
        if mended:
            self.valid = False
            self._note(mended)
        return True
