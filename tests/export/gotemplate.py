"""As much of Go's text/template as a Modelfile's template uses, so that what Ollama would render can be compared, and
its rules about templates applied: `parse` gives the tree."""

from __future__ import annotations

import json
import re
from typing import Any

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()]+')


def render(text: str, data: dict[str, Any]) -> str:
    """The text that a template makes of `data`. Raises `ValueError` for what Go would not parse."""
    return _run(parse(text), [{"$": data}], data)


def parse(text: str) -> list[Any]:
    """Nodes: ("text", text), ("do", action) or (if, range or with; its condition; its nodes; those of its else)."""
    nodes, rest = _parse(_tokens(text))
    if rest:
        raise ValueError(f"unexpected {rest[0]}")
    return nodes


def go_json(value: Any) -> str:
    """JSON as Go's encoding/json writes a map: keys sorted, no spaces, and <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=isinstance(value, dict))
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    # an action ends at the first closing braces outside of its strings
    action = r'\{\{((?:"(?:[^"\\]|\\.)*"|[^"])*?)\}\}'
    for index, part in enumerate(re.split(action, text, flags=re.DOTALL)):
        if index % 2:
            found.append(("do", part.strip()))
        elif part:
            if "{{" in part:
                raise ValueError(f"unbalanced braces in {part!r}")
            found.append(("text", part))
    return found


def _parse(tokens: list[tuple[str, str]]) -> tuple[list[Any], list[tuple[str, str]]]:
    nodes: list[Any] = []
    while tokens:
        kind, value = tokens[0]
        word = value.split(" ")[0] if kind == "do" else ""
        if word in ("end", "else"):
            return nodes, tokens
        tokens = tokens[1:]
        if word in ("if", "range", "with"):
            node, tokens = _block(word, value[len(word) :].strip(), tokens)
            nodes.append(node)
        else:
            nodes.append((kind, value))
    return nodes, tokens


def _block(word: str, condition: str, tokens: list[tuple[str, str]]) -> tuple[Any, list[tuple[str, str]]]:
    body, tokens = _parse(tokens)
    if not tokens:
        raise ValueError(f"{word} without end")
    other: list[Any] = []
    if tokens[0][1].startswith("else if "):
        node, tokens = _block("if", tokens[0][1][len("else if ") :], tokens[1:])
        return (word, condition, body, [node]), tokens
    if tokens[0][1] == "else":
        other, tokens = _parse(tokens[1:])
    if not tokens or tokens[0][1] != "end":
        raise ValueError(f"{word} without end")
    return (word, condition, body, other), tokens[1:]


def _run(nodes: list[Any], scopes: list[dict[str, Any]], dot: Any) -> str:
    text = ""
    for node in nodes:
        if node[0] == "text":
            text += node[1]
        elif node[0] == "do":
            text += _action(node[1], scopes, dot)
        else:
            word, condition, body, other = node
            inner = [*scopes, {}]
            if word == "range":
                text += _range(condition, body, inner, dot)
                continue
            value = _value(condition, inner, dot)
            chosen = body if value else other
            text += _run(chosen, inner, value if word == "with" and value else dot)
    return text


def _range(condition: str, body: list[Any], scopes: list[dict[str, Any]], dot: Any) -> str:
    names: list[str] = []
    if ":=" in condition:
        left, condition = condition.split(":=")
        names = [name.strip() for name in left.split(",")]
    text = ""
    for index, item in enumerate(_value(condition.strip(), scopes, dot) or []):
        scope = dict(zip(names, (index, item), strict=True)) if names else {}
        text += _run(body, [*scopes, scope], item)
    return text


def _action(text: str, scopes: list[dict[str, Any]], dot: Any) -> str:
    if match := re.fullmatch(r"(\$\w+) (:?=) (.+)", text):
        value = _value(match[3], scopes, dot)
        if match[2] == ":=":
            scopes[-1][match[1]] = value
        else:
            next(scope for scope in reversed(scopes) if match[1] in scope)[match[1]] = value
        return ""
    value = _value(text, scopes, dot)
    if not isinstance(value, str):
        raise ValueError(f"{text!r} prints a Go value, which is no JSON")
    return value


def _value(text: str, scopes: list[dict[str, Any]], dot: Any) -> Any:
    words = _WORD.findall(text)
    value, rest = _call(words, scopes, dot)
    if rest:
        raise ValueError(f"can't read {text!r}")
    return value


def _call(words: list[str], scopes: list[dict[str, Any]], dot: Any) -> tuple[Any, list[str]]:
    if words[0] == "json":
        value, rest = _operand(words[1:], scopes, dot)
        return (value.json() if hasattr(value, "json") else go_json(value)), rest
    if words[0] in ("eq", "ne", "and", "or"):
        name, words = words[0], words[1:]
        values = []
        while words and words[0] != ")":
            value, words = _operand(words, scopes, dot)
            values.append(value)
        if name in ("eq", "ne"):
            return (values[0] == values[1]) == (name == "eq"), words
        return (next((v for v in values if bool(v) == (name == "or")), values[-1])), words
    return _operand(words, scopes, dot)


def _operand(words: list[str], scopes: list[dict[str, Any]], dot: Any) -> tuple[Any, list[str]]:
    word, rest = words[0], words[1:]
    if word == "(":
        value, rest = _call(rest, scopes, dot)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    if word.startswith('"'):
        return json.loads(word), rest
    if word in ("true", "false"):
        return word == "true", rest
    if word.startswith("$"):
        return next(scope for scope in reversed(scopes) if word in scope)[word], rest
    if not word.startswith("."):
        raise ValueError(f"unknown word {word}")
    value = dot
    for key in word.strip(".").split("."):
        value = value[key] if key else value
    return value, rest
