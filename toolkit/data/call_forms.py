"""Ways of writing calls that chat templates bring along and that are no JSON object by itself: one reader each.

    mistral    [TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}], or [TOOL_CALLS]name[ARGS]{...} for each call
    tool_call  <|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>: Phi-4-mini, and Granite 3 without the end
    lfm        <|tool_call_start|>[name(key='text', other=1)]<|tool_call_end|>, Python with strings as they are
    olmo       <function_calls>name(key="text", other=1)</function_calls>, a call a line
    xml        <tool_call><function=name><parameter=key>value</parameter></function></tool_call>: Qwen3.5, Qwen3-Coder
    gemma      <start_function_call>call:name{key:<escape>text<escape>,other:1}<end_function_call>: FunctionGemma

Where a form does not tell a text from a number (`xml`), the schema of the tool does, if it is at hand.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.chats import ToolCall
from toolkit.data.jsontext import STRICT

Tools = Sequence[Mapping[str, Any]]


class NotRead(Exception):
    """What stands after a mark is no call in its form; the message says why."""


@dataclass(frozen=True, slots=True)
class Form:
    """A way of writing calls. `mark` opens it, as `opener` for short; `read(text, place, tools)` gives the calls from
    there and where they end, or raises `NotRead`."""

    name: str
    mark: re.Pattern[str]
    read: Callable[[str, int, Tools], tuple[list[ToolCall], int]]
    opener: str


_NAME = re.compile(r"\s*([^\s\[\](){}<>,=]+)")
_ARGS = re.compile(r"\s*(?:\[CALL_ID\][^\[\]{}]*)?\[ARGS\]\s*")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>\s*")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?")
_CLOSE_FUNCTION = re.compile(r"\s*</function>\s*(?:</tool_call>|\Z)")
_KEY = re.compile(r"\s*([^\s=(),\[\]{}'\"]+)\s*=\s*")
_AFTER_TEXT = re.compile(r"\s*(?:,\s*[^\s=(),\[\]{}'\"]+\s*=|\)\s*(?:[,\]\n]|</function_calls>|\Z))")
_LFM_END, _OLMO_END = "<|tool_call_end|>", "</function_calls>"
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


def _json(text: str, place: int) -> tuple[Any, int]:
    while place < len(text) and text[place].isspace():
        place += 1
    try:
        return STRICT.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        raise NotRead(f"not JSON: {error}") from None


def _objects(value: Any) -> list[ToolCall]:
    """Calls of a list of objects with `name` and `arguments`, or of one."""
    found = []
    for item in value if isinstance(value, list) else [value]:
        name = item.get("name") if isinstance(item, dict) else None
        arguments = item.get("arguments", item.get("parameters")) if isinstance(item, dict) else None
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            raise NotRead('wanted objects with "name" and "arguments"')
        found.append(ToolCall(name, arguments))
    if not found:
        raise NotRead("an empty list of calls")
    return found


def _mistral(text: str, place: int, tools: Tools) -> tuple[list[ToolCall], int]:
    name = _NAME.match(text, place)
    if name is None or text[place:].lstrip().startswith(("[", "{")):
        value, stop = _json(text, place)
        return _objects(value), stop
    args = _ARGS.match(text, name.end())
    value, stop = _json(text, args.end() if args else name.end())
    if not isinstance(value, dict):
        raise NotRead("arguments are not an object")
    return [ToolCall(name[1], value)], stop


def _tool_call(text: str, place: int, tools: Tools) -> tuple[list[ToolCall], int]:
    value, stop = _json(text, place)
    return _objects(value), _past(text, stop, "<|/tool_call|>")


def _past(text: str, place: int, end: str) -> int:
    """Behind a closing mark, where it is there."""
    rest = text[place:]
    return place + len(rest) - len(rest.lstrip()) + len(end) if rest.lstrip().startswith(end) else place


def _python(opening: str, closing: str, end: str) -> Callable[[str, int, Tools], tuple[list[ToolCall], int]]:
    """name(key=value, ...) one after the other, between brackets or on lines of their own."""

    def read(text: str, place: int, tools: Tools) -> tuple[list[ToolCall], int]:
        place = _past(text, place, opening) if opening else place
        calls = []
        while True:
            name = _NAME.match(text, place)
            if name is None or not text.startswith("(", name.end()):
                raise NotRead("wanted name(key=value, ...)")
            arguments, place = _arguments(text, name.end() + 1, raw=bool(opening))
            calls.append(ToolCall(name[1], arguments))
            rest = text[place:].lstrip(" \n,")
            if not rest or rest.startswith((closing, end)):
                stop = _past(text, place, closing) if opening else place
                return calls, _past(text, stop, end)
            place = len(text) - len(rest)  # behind the comma or line break that parts two calls

    return read


def _arguments(text: str, place: int, *, raw: bool) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while not text[place:].lstrip().startswith(")"):
        key = _KEY.match(text, place)
        if key is None:
            raise NotRead("wanted key=value")
        found[key[1]], place = _value(text, key.end(), raw=raw)
        place += len(text[place:]) - len(text[place:].lstrip())
        if text.startswith(",", place):
            place += 1
        elif not text.startswith(")", place):
            raise NotRead("wanted , or ) after a value")
    return found, text.index(")", place) + 1


def _value(text: str, place: int, *, raw: bool) -> tuple[Any, int]:
    """A value, and where it ends. With `raw` a text goes up to the quote behind which another key or the call's end
    follows, as the template escapes nothing."""
    if raw and text[place : place + 1] in ("'", '"'):
        quote = text[place]
        end = text.find(quote, place + 1)
        while end >= 0 and not _AFTER_TEXT.match(text, end + 1):
            end = text.find(quote, end + 1)
        if end < 0:
            raise NotRead("a text is not closed")
        return text[place + 1 : end], end + 1
    try:
        return STRICT.raw_decode(text, place)
    except (ValueError, RecursionError):
        pass
    for end in _ends(text, place):
        try:
            return _literal(text[place:end]), end
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise NotRead("a value that is neither JSON nor Python")


def _ends(text: str, place: int) -> Iterator[int]:
    """Where a Python value may end: before the commas and brackets that follow, the first few of them."""
    found = re.compile(r"[,)\]}\n]").finditer(text, place)
    for _, match in zip(range(64), found, strict=False):
        yield match.start()
        yield match.end()


def _literal(text: str) -> Any:
    if text.strip() in _WORDS:
        return _WORDS[text.strip()]
    value = ast.literal_eval(text.strip())
    json.dumps(value, allow_nan=False)  # what JSON can't hold is no argument
    return value


def _xml(text: str, place: int, tools: Tools) -> tuple[list[ToolCall], int]:
    function = _FUNCTION.match(text, place)
    if function is None:
        raise NotRead("wanted <function=name>")
    name, place = function[1].strip(), function.end()
    kinds = _kinds(name, tools)
    arguments: dict[str, Any] = {}
    while (parameter := _PARAMETER.match(text, place)) is not None:
        end = text.find("</parameter>", parameter.end())
        if end < 0:
            raise NotRead("a parameter has no </parameter>")
        written = text[parameter.end() : end]
        key = parameter[1].strip()
        arguments[key] = _meant(written.removesuffix("\n"), kinds.get(key))
        place = end + len("</parameter>")
    close = _CLOSE_FUNCTION.match(text, place)
    if close is None:
        raise NotRead("wanted <parameter=...> or </function>")
    return [ToolCall(name, arguments)], close.end()


def _kinds(name: str, tools: Tools) -> dict[str, Any]:
    """The declared type of each of a tool's arguments; empty where the tool is not known."""
    for tool in tools:
        function = tool.get("function", {})
        if function.get("name") == name:
            schemas = (function.get("parameters") or {}).get("properties") or {}
            return {key: schema.get("type") for key, schema in schemas.items() if isinstance(schema, dict)}
    return {}


def _meant(text: str, kind: Any) -> Any:
    if kind == "string":
        return text
    if text in _WORDS:
        return _WORDS[text]
    try:
        return STRICT.decode(text)
    except (ValueError, RecursionError):
        return text


_ESCAPE = "<escape>"


def _gemma(text: str, place: int, tools: Tools) -> tuple[list[ToolCall], int]:
    start = text[place:].lstrip()
    place += len(text[place:]) - len(start)
    name = re.compile(r"call:([^\s{]+)\{").match(text, place)
    if name is None:
        raise NotRead("wanted call:name{...}")
    arguments, stop = _gemma_object(text, name.end(), 0)
    return [ToolCall(name[1], arguments)], _past(text, stop, "<end_function_call>")


def _gemma_object(text: str, place: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while not text.startswith("}", place):
        quoted = text.startswith(_ESCAPE, place)
        start = place + len(_ESCAPE) * quoted
        colon = text.find(f"{_ESCAPE}:" if quoted else ":", start)
        if colon < 0:
            raise NotRead("wanted key:value")
        key, place = text[start:colon], colon + (len(_ESCAPE) * quoted) + 1
        found[key], place = _gemma_value(text, place, depth + 1)
        place = _comma(text, place, "}")
    return found, place + 1


def _gemma_value(text: str, place: int, depth: int) -> tuple[Any, int]:
    if depth > 50:
        raise NotRead("nested too deeply")
    if text.startswith(_ESCAPE, place):
        end = text.find(_ESCAPE, place + len(_ESCAPE))
        if end < 0:
            raise NotRead("a text is not closed")
        return text[place + len(_ESCAPE) : end], end + len(_ESCAPE)
    if text.startswith("{", place):
        return _gemma_object(text, place + 1, depth)
    if text.startswith("[", place):
        items, place = [], place + 1
        while not text.startswith("]", place):
            item, place = _gemma_value(text, place, depth + 1)
            items.append(item)
            place = _comma(text, place, "]")
        return items, place + 1
    word = re.compile(r"[^,{}\[\]<]+").match(text, place)
    if word is None:
        raise NotRead("a value is missing")
    if word[0].strip() in _WORDS:
        return _WORDS[word[0].strip()], word.end()
    try:
        return STRICT.decode(word[0].strip()), word.end()
    except (ValueError, RecursionError):
        raise NotRead("a value that is neither a number nor <escape>text<escape>") from None


def _comma(text: str, place: int, closing: str) -> int:
    """Behind the comma that parts values, or at what closes them."""
    if text.startswith(",", place) and not text.startswith(closing, place + 1):
        return place + 1
    if not text.startswith(closing, place):
        raise NotRead(f"wanted , or {closing}")
    return place


CALL_MARKS = (
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|tool_call|>", "<|/tool_call|>", "<|tool_call_start|>", _LFM_END),
    *("<function_calls>", _OLMO_END, "<start_function_call>", "<end_function_call>", _ESCAPE),
)
"""Tokens that calls are written with, which some vocabularies have as special ones."""


def form_in(template: str) -> str:
    """The call format that a model's own template writes, told from its text; `native` where it has no form's mark."""
    form = next((form.name for form in FORMS.values() if form.mark.search(template)), None)
    if form is None and '"parameters": ' in template and "<tool_call>" not in template:
        return "llama"
    return form or "native"


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("mistral", re.compile(r"\[TOOL_CALLS\]"), _mistral, "[TOOL_CALLS]"),
        Form("tool_call", re.compile(r"<\|tool_call\|>"), _tool_call, "<|tool_call|>"),
        Form("lfm", re.compile(r"<\|tool_call_start\|>"), _python("[", "]", _LFM_END), "<|tool_call_start|>"),
        Form("olmo", re.compile(r"<function_calls>"), _python("", _OLMO_END, _OLMO_END), "<function_calls>"),
        Form("xml", re.compile(r"<tool_call>(?=\s*<function=)|(?=<function=)"), _xml, "<tool_call>"),
        Form("gemma", re.compile(r"<start_function_call>"), _gemma, "<start_function_call>"),
    )
}
