"""The tools on offer in a chat: the built-in world's, which really run, or others, which don't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.chats import BUILTIN, BUILTIN_PREFIX, ToolCall
from toolkit.data.notes import Remarks, RowError
from toolkit.data.schemas import read_tools
from toolkit.data.seen import SeenTools
from toolkit.errors import InputError, Problem, did_you_mean
from toolkit.recipe.schema import Recipe
from toolkit.world import DOMAINS, TOOLS, World

ON_OFFER = 8  # as many as one built-in chat has at most
SEEN_ON_OFFER = 16  # of those seen in training
SEEN_CHARACTERS = 8_000  # about 2,000 tokens, which leaves room for a chat
HOW = f"give some: --tools FILE (a JSON list of function schemas) or {BUILTIN_PREFIX}DOMAIN"


@dataclass(slots=True)
class Toolbox:
    """Function schemas (OpenAI's shape), and the world in which built-in ones run; None where nothing is to run."""

    schemas: tuple[dict[str, Any], ...] = ()
    world: World | None = None
    source: str = ""

    @property
    def names(self) -> list[str]:
        return [schema["function"]["name"] for schema in self.schemas]

    @property
    def about(self) -> str:
        """What is on offer, or that nothing is and how to offer some, in a line."""
        return f"tools: {', '.join(self.names)} ({self.source})" if self.names else f"no tools on offer; {self.source}"

    def run(self, call: ToolCall) -> str | None:
        """The result of a call as JSON text, {"error": ...} where it can't be made; None where nothing runs it."""
        if self.world is None:
            return None
        offered = {schema["function"]["name"]: schema for schema in self.schemas}
        ours = TOOLS.get(call.name)
        if call.name not in offered:
            # to a world of built-in tools alone a wrong name is an error; another world might have known it
            return json.dumps({"error": f"unknown tool: {call.name}"}) if self._all_ours else None
        if ours is None or ours.schema != offered[call.name]:
            return None
        return self.world.call(call.name, call.arguments)

    @property
    def _all_ours(self) -> bool:
        return all(
            name in TOOLS and TOOLS[name].schema == schema
            for name, schema in zip(self.names, self.schemas, strict=True)
        )


def choose_tools(
    word: str | None,
    recipe: Recipe | None = None,
    seen: SeenTools | None = None,
    *,
    seed: int = 0,
    execute: bool = True,
) -> Toolbox:
    """The tools that --tools names: `builtin:home,music`, single tools as `builtin:play_music`, `none`, or a JSON file.

    Without a word: built-in tools of the recipe's domains, where it trains on nothing but built-in chats; else those
    `seen` in training, the most frequent where there are many. `seed` is the simulated world's. Raises `InputError`.
    """
    if word == "none":
        return Toolbox(source="--tools none")
    if word is None:
        sources = [one for one in recipe.data.sources if one.source == BUILTIN] if recipe else []
        if recipe is not None and sources and len(sources) == len(recipe.data.sources):
            domains = sources[0].domains or list(DOMAINS)
            names = _across(domains, min(ON_OFFER, sources[0].max_tools) if sources[0].domains else ON_OFFER)
            return _builtin(
                names, f"of the recipe's domains; others with --tools {BUILTIN_PREFIX}DOMAIN", seed, execute
            )
        return _seen(seen, seed, execute)
    if word.startswith(BUILTIN_PREFIX):
        wanted = [name.strip() for name in word.removeprefix(BUILTIN_PREFIX).split(",") if name.strip()]
        return _builtin(_named(wanted, word), f"of {word}", seed, execute)
    return Toolbox(_read(Path(word).expanduser(), word), None, f"of {word}")


def _seen(seen: SeenTools | None, seed: int, execute: bool) -> Toolbox:
    """As many of the tools seen in training as a prompt has room for."""
    if seen is None or not seen.schemas:
        why = "its training had none" if seen is not None else "what it was trained with is not known"
        return Toolbox(source=f"{why}: {HOW}")
    kept: dict[str, dict[str, Any]] = {}
    size = 0
    for schema in seen.schemas:
        size += len(json.dumps(schema))
        if kept and (size > SEEN_CHARACTERS or len(kept) == SEEN_ON_OFFER):
            break
        kept.setdefault(schema["function"]["name"], schema)
    source = "seen in training"
    if len(kept) < seen.distinct:
        source = f"the most frequent of {seen.distinct:,} seen in training; others with --tools FILE, see {seen.path}"
    return Toolbox(tuple(kept.values()), World(seed) if execute else None, source)


def unseen(toolbox: Toolbox, seen: SeenTools | None) -> str:
    """A line on tools on offer that the model's training never had; empty where all were there or it is not known."""
    if seen is None or not seen.whole:
        return ""
    known = {schema["function"]["name"] for schema in seen.schemas}
    strange = [name for name in toolbox.names if name not in known]
    if not strange:
        return ""
    had = f"it had {', '.join(sorted(known)[:6])}{', ...' if len(known) > 6 else ''}" if known else "it had none"
    return f"not seen in training, which may show in the calls: {', '.join(strange)}; {had}"


def _builtin(names: Sequence[str], source: str, seed: int, execute: bool) -> Toolbox:
    return Toolbox(tuple(TOOLS[name].schema for name in names), World(seed) if execute else None, source)


def _of_domain(domain: str) -> list[str]:
    return [tool.name for tool in TOOLS.values() if tool.domain == domain and not tool.test]


def _across(domains: Sequence[str], count: int) -> list[str]:
    """`count` tools, in turn one of each domain."""
    piles = [[name for name in _of_domain(domain) if TOOLS[name].trained] for domain in domains]
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
        problems.append(
            Problem("--tools", f"{word} names nothing; wanted {BUILTIN_PREFIX} and one of {', '.join(DOMAINS)}")
        )
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(names))


def _read(path: Path, word: str) -> tuple[dict[str, Any], ...]:
    """The tools in a JSON file, or what comes through a pipe: a list of function schemas, or an object with `tools`."""
    if not path.is_file() and not path.is_fifo():
        around = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        told = f"{word} is a folder" if path.is_dir() else f"no file {word}{did_you_mean(path.name, around)}"
        raise InputError(f"--tools: {told}; wanted a JSON file, or {BUILTIN_PREFIX}DOMAIN")
    try:
        value = jsons.loads(path.read_text(encoding="utf-8-sig"))  # as Windows writes files
        listed = value["tools"] if isinstance(value, dict) and "tools" in value else value
        tools = read_tools(listed, Remarks()).schemas
    except (ValueError, OSError) as error:
        if isinstance(error, RowError):
            raise InputError(f"{word}: {error}") from None
        raise InputError(f"{word}: not a JSON file of tools ({error})") from None
    if not tools:
        raise InputError(f"{word}: no tools in it; wanted a list of function schemas")
    names = [tool["function"]["name"] for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{word}: {twice} is there twice")
    return tools
