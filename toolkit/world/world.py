"""The simulated world: some people, files, mail, shops and lamps in memory, on which the tools really run.

Nothing here touches the machine it runs on. Each domain's state is made when first needed, from the world's seed and
the domain's name alone, so the order of calls does not change what a domain starts with.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from toolkit.world.lexicon import email_of, words
from toolkit.world.shelf.entry import shelf
from toolkit.world.shelf.running import parameters, run
from toolkit.world.spec import PARTS, TOOLS, ToolFailure, argument_problem, schema_problem
from toolkit.world.values import value


class World:
    """One small world. Two worlds of one seed answer the same calls, in the same order, with the same results.

    `aliases` are the tools that a chat shows under names of its own, from `meta["aliases"]`: a built-in tool or one of
    the shelf with its parameters' names mapped, or an invented tool with its parameters and the kinds of its result.
    """

    def __init__(self, seed: int, aliases: Mapping[str, Any] | None = None) -> None:
        self.seed = seed
        self.aliases: dict[str, Any] = dict(aliases or {})
        r = self.random("self")
        self.today: date = date(2025, 1, 6) + timedelta(days=r.randrange(1000))
        self.first_name: str = r.choice(words("first"))
        self.name = f"{self.first_name} {r.choice(words('last'))}"
        self.email = email_of(r, self.name)
        self.home = f"/home/{self.first_name.lower()}"
        self._parts: dict[str, Any] = {}

    def random(self, *names: object) -> Random:
        """A generator of its own for the thing named; text seeds are hashed with SHA-512, alike in every process."""
        return Random(" ".join(map(str, ("world", self.seed, *names))))

    def __getitem__(self, name: str) -> Any:
        if name not in self._parts:
            self._parts[name] = PARTS[name](self.random("part", name), self)
        return self._parts[name]

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Run one tool call; return its result as a JSON string, {"error": ...} where anything is wrong."""
        alias = self.aliases.get(name)
        if alias is not None and "result" in alias:
            return self._invented(name, alias, arguments)
        if alias is not None and isinstance(arguments, dict):
            params = alias["params"]
            if unknown := [key for key in arguments if key not in params]:
                return _dump({"error": f"unknown argument: {unknown[0]}"})
            arguments = {params[key]: item for key, item in arguments.items()}
            return self._shelf(alias, arguments) if "shelf" in alias else self.call(alias["tool"], arguments)
        tool = TOOLS.get(name)
        if tool is None:
            return _dump({"error": f"unknown tool: {name}"})
        if problem := argument_problem(tool, arguments):
            return _dump({"error": problem})
        try:
            return _dump(tool.run(self, **copy.deepcopy(arguments)))
        except ToolFailure as failure:
            return _dump({"error": str(failure)})
        except (ArithmeticError, ValueError) as error:  # a model may write numbers and text that no tool can compute
            return _dump({"error": f"{name} can't work with these values: {error}"})

    def _invented(self, name: str, alias: Mapping[str, Any], arguments: Any) -> str:
        """What an invented tool returns: values of the right kinds that follow from the seed and the call."""
        if problem := schema_problem(alias["parameters"], arguments):
            return _dump({"error": problem})
        r = self.random("invented", name, json.dumps(arguments, sort_keys=True))
        found: dict[str, Any] = {}
        for key, kind in alias["result"].items():
            if kind.startswith("="):
                found[key] = kind[1:]
            elif kind.startswith("@"):  # an argument, said again
                if kind[1:] in arguments:
                    found[key] = arguments[kind[1:]]
            elif key == "closest":
                found[key] = r.choice(next(item for item in arguments.values() if isinstance(item, list)))
            elif key == "ids":
                limits = [item for item in arguments.values() if isinstance(item, int)]
                count = min(r.choice((1, 2, 2, 3)), *limits, 3)
                if kind.startswith("?"):  # or none
                    count = min(r.choice((0, 0, 1, 2)), count)
                kind = kind.removeprefix("?")
                found[key] = list(dict.fromkeys(value(kind, r, self) for _ in range(count)))
            elif kind.startswith("?"):  # a number, or 0
                found[key] = 0 if r.random() < 0.5 else value(kind[1:], r, self)
            else:
                item = value(kind, r, self)
                found[key] = getattr(item, "value", item)
        return _dump(found)

    def _shelf(self, alias: Mapping[str, Any], arguments: dict[str, Any]) -> str:
        """What a tool of the shelf returns, which follows from the seed and the call.

        `alias["repeats"]`: its own names of the arguments that are said again before and behind that, if any are.
        """
        name: str = alias["shelf"]
        entry = shelf()[name]
        if problem := schema_problem(parameters(entry), arguments):
            return _dump({"error": problem})
        r = self.random("shelf", name, json.dumps(arguments, sort_keys=True))
        try:
            found = run(entry, arguments, r, self)
        except (ToolFailure, ArithmeticError) as error:
            return _dump({"error": str(error)})
        shown = {key: other for other, key in alias["params"].items() if key in arguments and other not in found}
        ahead, behind = (
            {shown[key]: arguments[key] for key in part if key in shown} for part in alias.get("repeats", ((), ()))
        )
        return _dump({**ahead, **found, **behind})

    def state(self) -> dict[str, Any]:
        """All that calls can change, as plain JSON values: equal states mean that the same was done."""
        return {name: copy.deepcopy(self[name]) for name in sorted(PARTS)}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
