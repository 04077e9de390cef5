"""The tools on offer in a chat: the built-in world's, which really run, or a file's, which don't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.builtin import DOMAINS, TOOLS, World
from toolkit.data.chats import ToolCall
from toolkit.data.schemas import RowError, read_tools
from toolkit.errors import InputError, Problem, did_you_mean
from toolkit.recipe.schema import Recipe

PREFIX = "builtin:"
ON_OFFER = 8  # as many as one built-in chat has at most


@dataclass(slots=True)
class Toolbox:
    """Function schemas (OpenAI's shape), and the world in which calls run; None where nothing can run them."""

    schemas: tuple[dict[str, Any], ...] = ()
    world: World | None = None
    source: str = ""

    @property
    def names(self) -> list[str]:
        return [schema["function"]["name"] for schema in self.schemas]

    def run(self, call: ToolCall) -> str | None:
        """The result of a call as JSON text, {"error": ...} where it can't be made; None where nothing runs here."""
        if self.world is None:
            return None
        if call.name not in self.names:
            return json.dumps({"error": f"unknown tool: {call.name}"})
        return self.world.call(call.name, call.arguments)


def choose_tools(word: str | None, recipe: Recipe | None = None, *, seed: int = 0, execute: bool = True) -> Toolbox:
    """The tools that --tools names: `builtin:home,music`, single tools as `builtin:play_music`, `none`, or a JSON file.

    Without a word: built-in tools of the recipe's domains, where it trains on built-in chats; else none.
    `seed` is the simulated world's. Raises `InputError`.
    """
    if word == "none":
        return Toolbox()
    if word is None:
        sources = [one for one in recipe.data.sources if one.source == "builtin:tools"] if recipe else []
        if not sources:
            return Toolbox()
        domains = sources[0].domains or list(DOMAINS)
        names = _across(domains, min(ON_OFFER, sources[0].max_tools) if sources[0].domains else ON_OFFER)
        return _builtin(names, f"of the recipe's domains; others with --tools {PREFIX}DOMAIN", seed, execute)
    if word.startswith(PREFIX):
        wanted = [name.strip() for name in word.removeprefix(PREFIX).split(",") if name.strip()]
        return _builtin(_named(wanted, word), f"of {word}", seed, execute)
    return Toolbox(_read(Path(word).expanduser(), word), None, f"of {word}")


def _builtin(names: Sequence[str], source: str, seed: int, execute: bool) -> Toolbox:
    return Toolbox(tuple(TOOLS[name].schema for name in names), World(seed) if execute else None, source)


def _of_domain(domain: str) -> list[str]:
    return [tool.name for tool in TOOLS.values() if tool.domain == domain]


def _across(domains: Sequence[str], count: int) -> list[str]:
    """`count` tools, in turn one of each domain."""
    piles = [[name for name in _of_domain(domain) if not TOOLS[name].held_out] for domain in domains]
    rounds = (pile[index] for index in range(max(map(len, piles))) for pile in piles if index < len(pile))
    return [name for _, name in zip(range(count), rounds, strict=False)]


def _named(wanted: Sequence[str], word: str) -> list[str]:
    names: list[str] = []
    problems = []
    for name in wanted:
        if name in DOMAINS:
            names += _of_domain(name)
        elif name in TOOLS:
            names.append(name)
        else:
            near = did_you_mean(name, [*DOMAINS, *TOOLS]) or f", wanted one of {', '.join(DOMAINS)}, or a tool's name"
            problems.append(Problem("--tools", f"no domain or tool {name}{near}"))
    if not wanted:
        problems.append(Problem("--tools", f"{word} names nothing; wanted {PREFIX} and one of {', '.join(DOMAINS)}"))
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(names))


def _read(path: Path, word: str) -> tuple[dict[str, Any], ...]:
    """The tools in a JSON file: a list of function schemas, or an object with `tools`."""
    if not path.is_file():
        around = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, around)
        raise InputError(f"--tools: no file {word}{near}; wanted a JSON file, or {PREFIX}DOMAIN")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        tools = read_tools(value["tools"] if isinstance(value, dict) and "tools" in value else value)
    except (ValueError, OSError) as error:
        if isinstance(error, RowError):
            raise InputError(f"{word}: {error}") from None
        raise InputError(f"{word}: not a JSON file of tools ({error})") from None
    if not tools:
        raise InputError(f"{word}: no tools in it; wanted a list of function schemas")
    return tools
