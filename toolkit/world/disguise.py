"""Built-in tools under other names: what is learnt from them must then be read in the schemas on offer.

Most training chats show their tools with other names, other parameter names, another order and other words around the
description; optional parameters that no call uses may be left out. The tool underneath stays the same, so calls under
the new names still run: `Alias` tells the world what each name stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from tomllib import loads
from typing import Any

from toolkit.chats import Chat, ToolCall, Turn
from toolkit.world.spec import TOOLS, Unsuitable

_CASES = ("snake", "camel", "pascal")
_CASE_WEIGHTS = (0.75, 0.17, 0.08)
_OPAQUE = 0.1  # share of disguised chats whose tools have names that say nothing


@dataclass(frozen=True, slots=True)
class Alias:
    """A tool under another name: `params` maps shown parameter names to the tool's own."""

    tool: str
    schema: dict[str, Any]
    params: Mapping[str, str]

    def meta(self) -> dict[str, Any]:
        """What `World` needs to run calls under this name, as JSON values."""
        return {"tool": self.tool, "params": dict(self.params)}


@cache
def _synonyms() -> dict[str, dict[str, tuple[str, ...]]]:
    text = files(__package__).joinpath("synonyms.toml").read_text(encoding="utf-8")
    return {
        part: {key: tuple(value.split()) for key, value in loads(text)[part].items()} for part in ("word", "parameter")
    }


@cache
def held_names() -> frozenset[str]:
    """Names of unseen tools, without case and underscores: no training tool may come close to them."""
    return frozenset(bare(name) for name, tool in TOOLS.items() if not tool.trained)


def bare(name: str) -> str:
    return name.replace("_", "").lower()


def cased(name: str, case: str) -> str:
    """A snake_case name in another case."""
    if case == "snake":
        return name
    text = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return text if case == "pascal" else text[:1].lower() + text[1:]


def opaque(r: Random, taken: Iterable[str]) -> str:
    """A name that says nothing about what it stands for."""
    taken = set(taken)
    while True:
        name = r.choice((f"tool_{r.randint(1, 99)}", f"fn_{r.randrange(4096):03x}", f"f{r.randint(1, 40)}"))
        if name not in taken:
            return name


def described(r: Random, description: str) -> str:
    """A tool's description in other words around it."""
    style = r.random()
    lead = description[:1].lower() + description[1:]
    if style < 0.6 or not description[1:2].islower():
        return description
    if style < 0.7:
        return f"Use this to {lead}"
    if style < 0.8:
        return f"Call it to {lead}"
    if style < 0.9:
        return description.rstrip(".")
    return f"Tool that helps to {lead}"


def disguise(r: Random, chat: Chat, names: Iterable[str], keep: Iterable[str] = ()) -> tuple[Chat, dict[str, Any]]:
    """The chat with the built-in tools `names` under other names, and the world's `aliases` for them.

    Raises Unsuitable where two tools would get one name.
    """
    case = r.choices(_CASES, _CASE_WEIGHTS)[0]
    hide = r.random() < _OPAQUE
    used: dict[str, set[str]] = {}
    for turn in chat.turns:
        for call in turn.tool_calls:
            used.setdefault(call.name, set()).update(call.arguments)
    taken = set(keep)
    found: dict[str, tuple[str, Alias]] = {}
    for name in names:
        shown = opaque(r, taken) if hide else _name(r, name, case)
        if shown in taken or shown in TOOLS or bare(shown) in held_names():
            raise Unsuitable("one name for two tools")
        taken.add(shown)
        found[name] = (shown, _alias(r, name, shown, used.get(name, set()), case, hide))
    chat = Chat(
        turns=tuple(_renamed(turn, found) for turn in chat.turns),
        tools=tuple(
            found[name][1].schema if (name := tool["function"]["name"]) in found else tool for tool in chat.tools
        ),
        kind=chat.kind,
        source=chat.source,
        where=chat.where,
        meta=chat.meta,
    )
    return chat, {shown: alias.meta() for shown, alias in found.values()}


def _name(r: Random, name: str, case: str) -> str:
    """The same meaning in other words: `get_balance` becomes `balance_get`, `fetchFunds` or `app_read_money`."""
    words = _synonyms()["word"]
    parts = [r.choice((part, *words.get(part, ()))) if r.random() < 0.85 else part for part in name.split("_")]
    style = r.random()
    if style < 0.2 and len(parts) == 2:
        parts.reverse()
    elif style < 0.35:
        parts.insert(0, TOOLS[name].domain)
    elif style < 0.42:
        parts.append(r.choice(("tool", "now", "action", "op", "v2", "service")))
    elif style < 0.5:
        parts.insert(0, r.choice(("do", "my", "user", "app", "run", "api")))
    shown = "_".join(parts)
    if shown == name:
        parts = [*parts, str(r.randint(2, 9))] if r.random() < 0.5 else [TOOLS[name].domain, *parts]
        shown = "_".join(parts)
    return cased(shown, case)


def _alias(r: Random, name: str, shown: str, used: set[str], case: str, hide: bool) -> Alias:
    tool = TOOLS[name]
    properties: Mapping[str, Any] = tool.parameters["properties"]
    kept = [key for key in properties if key in tool.required or key in used or r.random() < 0.6]
    if r.random() < 0.4:
        r.shuffle(kept)
    renamed: dict[str, str] = {}
    rename = r.random() < 0.7
    for position, key in enumerate(kept):
        other = key
        if hide and r.random() < 0.5:
            other = f"arg{position + 1}"
        elif rename:
            other = cased(parameter(r, key), case if case != "pascal" else "camel")
        renamed[other if other not in renamed else key] = key
    if len(renamed) < len(kept):
        raise Unsuitable("one name for two parameters")
    schema = {
        "type": "function",
        "function": {
            "name": shown,
            "description": tool.description if hide else described(r, tool.description),
            "parameters": {
                "type": "object",
                "properties": {other: properties[key] for other, key in renamed.items()},
                "required": [other for other, key in renamed.items() if key in tool.required],
            },
        },
    }
    return Alias(name, schema, renamed)


def parameter(r: Random, key: str) -> str:
    """Another name for a parameter, or its own."""
    table = _synonyms()["parameter"]
    if key in table and r.random() < 0.75:
        return r.choice(table[key])
    words = _synonyms()["word"]
    return "_".join(r.choice((part, *words.get(part, ()))) if r.random() < 0.4 else part for part in key.split("_"))


def _renamed(turn: Turn, found: Mapping[str, tuple[str, Alias]]) -> Turn:
    if turn.role == "tool" and turn.name is not None and turn.name in found:
        return Turn("tool", turn.content, name=found[turn.name][0])
    if not any(call.name in found for call in turn.tool_calls):
        return turn
    calls = tuple(
        ToolCall(
            found[call.name][0],
            {o: call.arguments[k] for o, k in found[call.name][1].params.items() if k in call.arguments},
        )
        if call.name in found
        else call
        for call in turn.tool_calls
    )
    return Turn(turn.role, turn.content, calls)
