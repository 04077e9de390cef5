"""How Ollama finds tool calls and picks a template, as rules on our own: no Ollama runs here.

- Versions before 0.30, and OLLAMA_GO_TEMPLATE=1, prompt by the Modelfile's TEMPLATE. So does any version where a
  RENDERER or PARSER is set. Later ones take the GGUF's own template where it can do more, or as much and the
  Modelfile's is not seen to write results.
- Without a PARSER the mark that opens calls is inferred from the TEMPLATE: in the first `if` with .ToolCalls among its
  words, the first text that is not blank, up to its first brace; "{" where there is none.
- A call is the first name of an offered tool after the mark, and the arguments of the first JSON object there: those of
  an object with the key `name` (`arguments`, or `parameters`; none: no call), or else the whole object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.export.gotemplate import parse

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a user of Ollama gets: calls, and text beside them."""

    calls: list[Call]
    content: str


def directives(modelfile: str) -> dict[str, str]:
    """FROM, TEMPLATE, PARSER and RENDERER of a Modelfile."""
    found = re.findall(
        r'^(FROM|TEMPLATE|PARSER|RENDERER) (?:"""(.*?)"""|([^\n]*))$', modelfile, re.MULTILINE | re.DOTALL
    )
    return {name: long or short for name, long, short in found}


def answer(modelfile: str, text: str, names: Sequence[str]) -> Answer:
    """What becomes of a model's text where the Modelfile's TEMPLATE prompts and tools of these names are offered."""
    given = directives(modelfile)
    if given.get("PARSER") == "qwen3":
        return qwen3(text)
    return by_mark(text, names, mark(given["TEMPLATE"]))


def mark(template: str) -> str:
    """What opens calls."""
    node = _asks_for_calls(parse(template))
    text = _first_text(node[2]) if node is not None else None
    return ((text or "").partition("{")[0]).strip() or "{"


def _asks_for_calls(nodes: list[Any]) -> Any:
    for node in nodes:
        if node[0] == "if" and re.search(r"\.ToolCalls\b", node[1]):
            return node
        if node[0] in ("if", "range", "with"):
            for inner in node[2:]:
                if (found := _asks_for_calls(inner)) is not None:
                    return found
    return None


def _first_text(nodes: list[Any]) -> str | None:
    for node in nodes:
        if node[0] == "text":
            if node[1].strip():
                return str(node[1])
        elif node[0] == "do":
            return None
        else:
            return next((found for inner in node[2:] if (found := _first_text(inner)) is not None), None)
    return None


def by_mark(text: str, names: Sequence[str], opens: str) -> Answer:
    """Calls behind a mark."""
    start = text.find(opens)
    if start < 0 or (opens in "{[" and text[:start].strip()):
        return Answer([], text)
    calls, rest = [], text[start:]
    while (found := _call(rest, names)) is not None:
        call, rest = found
        calls.append(call)
    if not calls and opens in "{[":
        return Answer([], text)
    return Answer(calls, text[:start])


def _call(text: str, names: Sequence[str]) -> tuple[Call, str] | None:
    places = [(text.find(name), -len(name), name) for name in names if name in text]
    if not places:
        return None
    start, length, name = min(places)
    found = _first_object(text)
    if found is None:
        return None
    value, end = found
    arguments = _arguments(value, name)
    if arguments is None:
        return None
    return (name, value if arguments is _WHOLE else arguments), text[max(end, start - length) :]


def _first_object(text: str) -> tuple[dict[str, Any], int] | None:
    """The first object that is valid, and the place of its last brace."""
    at = text.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            at = text.find("{", at + 1)
            continue
        return value, end - 1
    return None


_WHOLE: dict[str, Any] = {}


def _arguments(value: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The arguments in an object; `_WHOLE` where it has no key that is known, None where there is no call."""

    def given(key: str, of: dict[str, Any]) -> dict[str, Any] | None:
        inner = of.get(key)
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)
            except ValueError:
                return None
        return inner if isinstance(inner, dict) else None

    def find(one: Any) -> tuple[bool, dict[str, Any] | None]:
        if isinstance(one, list):
            return next((found for item in one if (found := find(item))[0]), (False, None))
        if not isinstance(one, dict):
            return False, None
        if "name" in one:
            inner = given("arguments", one)
            return True, inner if inner is not None else given("parameters", one)
        if (inner := given(name, one)) is not None:
            return True, inner
        return next((found for item in one.values() if (found := find(item))[0]), (False, None))

    known, inner = find(value)
    return inner if known else _WHOLE


def qwen3(text: str) -> Answer:
    """The built-in parser `qwen3`: objects with `name` and `arguments` between <tool_call> marks, strictly read."""
    calls: list[Call] = []
    for inner in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL):
        value = json.loads(inner)
        if not value.get("name"):
            raise ValueError("empty function name")
        calls.append((value["name"], value.get("arguments") or {}))
    return Answer(calls, re.sub(r"\s*<tool_call>.*?</tool_call>\s*", "", text, flags=re.DOTALL))


def prompts_with_the_gguf(modelfile: str, jinja: str, *, go_forced: bool = False) -> bool:
    """Whether Ollama from 0.30 on takes the template inside the GGUF (`go_forced`: OLLAMA_GO_TEMPLATE=1)."""
    given = directives(modelfile)
    if "RENDERER" in given or "PARSER" in given:
        return False
    template = given.get("TEMPLATE")
    if template is None:
        return True
    if go_forced:
        return False
    mine = {"tools"} if re.search(r"\.Tools\b", template) else set()
    theirs = {"tools"} if "tools" in jinja or "tool_call" in jinja else set()
    theirs |= {"thinking"} if "<think>" in jinja and "</think>" in jinja else set()
    results = 'eq .Role "tool"' in template or "tool_response" in template or "TOOL_RESULTS" in template
    go_whole = bool(mine) and re.search(r"\.ToolCalls\b", template) is not None and results
    seen = ("tool_response", "tool_results", "role'] == 'tool'", "role == 'tool'", 'role == "tool"', "ipython")
    jinja_whole = "tool_calls" in jinja and any(word in jinja for word in seen)
    if len(theirs) > len(mine):
        return not go_whole or jinja_whole
    return theirs == mine and "tools" in mine and jinja_whole and not go_whole
