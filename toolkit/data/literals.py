"""Values written as Java or JavaScript source: what BFCL's functions of those languages take as text.

    Java        42, 42L, 1.5f, true, null, "text", 'c', new int[]{1, 2}, new ArrayList<>(Arrays.asList("a", "b")),
                new HashMap<String, Object>() {{ put("key", 1); }}, List.of(1, 2), Map.of("key", 1)
    JavaScript  42, 42n, 1.5, true, null, undefined, 'text', "text", `text`, [1, 2], new Array(1, 2), {key: [1]},
                new Map([["key", 1]])

Anything else (a variable, an expression) stands for itself and stays text.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Language = Literal["java", "javascript"]
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?([lLfFdDn]?)(?![\w.])")
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}
_WORD = re.compile(r"(?:true|false|null|undefined)(?![\w.(\[])")
_KEY = re.compile(r"[A-Za-z_$][\w$]*")
_GENERIC = r"(?:<[^()]*?>)?"
_NEW_ARRAY = re.compile(rf"new\s+[\w.]+{_GENERIC}\s*(?:\[\s*\])+\s*\{{")
_LIST = re.compile(rf"(?:new\s+(?:ArrayList|LinkedList){_GENERIC}\s*\(\s*)?(?:Arrays\.asList|List\.of|Set\.of)\s*\(")
_NEW_LIST = re.compile(rf"new\s+(?:ArrayList|LinkedList|HashSet){_GENERIC}\s*\(\s*\d*\s*\)")
_NEW_MAP = re.compile(rf"new\s+(?:Linked|Tree)?Hash?(?:Map|table){_GENERIC}\s*\(\s*\)")
_MAP_OF = re.compile(r"Map\.of\s*\(")
_BODY = re.compile(r"\s*\{\s*\{?")
_STEP = re.compile(r"\s*(add|put)\s*\(")
_JS_ARRAY = re.compile(r"new\s+(?:Array|Set)\s*\(\s*(\[)?")
_JS_MAP = re.compile(r"new\s+Map\s*\(")
_OPENING, _CLOSING = "([{", ")]}"


def read(text: str, language: Language) -> Any:
    """The JSON value that a literal means; the text itself where it is no literal."""
    reader = _Reader(text, language)
    try:
        value = reader.value()
        reader.space()
    except (_NoLiteral, RecursionError):
        return text.strip()
    return value if reader.at == len(text) else text.strip()


class _NoLiteral(Exception):
    """Not what the grammar has at this place."""


class _Reader:
    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.java = language == "java"
        self.at = 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def value(self) -> Any:
        self.space()
        start = self.text[self.at : self.at + 1]
        if start and start in ("\"'" if self.java else "\"'`"):
            return self.string(start)
        if number := self.take(_NUMBER):
            return _number(number)
        if word := self.take(_WORD):
            return _WORDS[word[0]]
        return self.java_value(start) if self.java else self.javascript_value(start)

    def java_value(self, start: str) -> Any:
        if start == "{":
            self.at += 1
            return self.items("}")
        if self.take(_NEW_ARRAY):
            return self.items("}")
        if match := self.take(_LIST):
            found = self.items(")")
            if match[0].startswith("new"):
                self.expect(")")
            return found
        if self.take(_MAP_OF):
            flat = self.items(")")
            return {str(key): value for key, value in zip(flat[::2], flat[1::2], strict=False)}
        if self.take(_NEW_LIST):
            return [step[0] for step in self.steps() if step]
        if self.take(_NEW_MAP):
            return {str(step[0]): step[1] for step in self.steps() if len(step) == 2}
        return self.expression()

    def javascript_value(self, start: str) -> Any:
        if start == "[":
            self.at += 1
            return self.items("]")
        if start == "{":
            self.at += 1
            return self.object()
        if match := self.take(_JS_ARRAY):
            if not match[1]:
                return self.items(")")
            found = self.items("]")
            self.expect(")")
            return found
        if self.take(_JS_MAP):
            pairs = self.items(")")
            entries = pairs[0] if pairs and isinstance(pairs[0], list) else []
            return {str(one[0]): one[1] for one in entries if isinstance(one, list) and len(one) == 2}
        return self.expression()

    def items(self, end: str) -> list[Any]:
        found: list[Any] = []
        while True:
            self.space()
            if self.text.startswith(end, self.at):
                self.at += 1
                return found
            found.append(self.value())
            self.space()
            if not self.text.startswith(end, self.at):
                self.expect(",")

    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            self.space()
            if self.text.startswith("}", self.at):
                self.at += 1
                return found
            quote = self.text[self.at : self.at + 1]
            if quote and quote in "\"'`":
                key = self.string(quote)
            elif match := self.take(_KEY) or self.take(_NUMBER):
                key = match[0]
            else:
                raise _NoLiteral
            self.space()
            if self.text[self.at : self.at + 1] in (",", "}"):
                found[key] = key  # {name} is short for {name: name}
            else:
                self.expect(":")
                found[key] = self.value()
                self.space()
            if not self.text.startswith("}", self.at):
                self.expect(",")

    def steps(self) -> list[list[Any]]:
        """The arguments of each add or put in `{{ add(1); add(2); }}`; none where there is no such block."""
        if not self.take(_BODY):
            return []
        found = []
        while self.take(_STEP):
            found.append(self.items(")"))
            self.space()
            if self.text.startswith(";", self.at):
                self.at += 1
        for _ in range(2):
            self.space()
            if self.text.startswith("}", self.at):
                self.at += 1
        return found

    def string(self, quote: str) -> str:
        stop = self.at + 1
        while stop < len(self.text) and self.text[stop] != quote:
            stop += 2 if self.text[stop] == "\\" else 1
        if stop >= len(self.text):
            raise _NoLiteral
        inside = self.text[self.at + 1 : stop]
        self.at = stop + 1
        if "\\" not in inside:
            return inside
        escaped = re.sub(r'(?<!\\)"', r"\"", re.sub(r"\\(['`$])", r"\1", inside))
        try:
            return str(json.loads(f'"{escaped}"', strict=False))
        except ValueError:
            return inside

    def expression(self) -> str:
        """Text up to the comma or bracket that ends it."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            sign = self.text[self.at]
            if depth == 0 and (sign in _CLOSING or sign in ",;"):
                break
            depth += (sign in _OPENING) - (sign in _CLOSING)
            self.at += 1
        found = self.text[start : self.at].strip()
        if not found:
            raise _NoLiteral
        return found

    def expect(self, sign: str) -> None:
        self.space()
        if not self.text.startswith(sign, self.at):
            raise _NoLiteral
        self.at += 1


def _number(match: re.Match[str]) -> int | float:
    digits = match[0].removesuffix(match[1]).replace("_", "") if match[1] else match[0].replace("_", "")
    if match[1] in ("l", "L", "n"):
        return int(float(digits)) if not digits.lstrip("+-").isdigit() else int(digits)
    return int(digits) if re.fullmatch(r"[+-]?\d+", digits) and not match[1] else float(digits)
