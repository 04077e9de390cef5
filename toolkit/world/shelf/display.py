"""The tools of the shelf as one chat shows them, and requests for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from toolkit.world.disguise import bare, cased, described, held_names, opaque, parameter
from toolkit.world.draft import Draft
from toolkit.world.language import Filled, capital, compose, parse, said, shown, splice
from toolkit.world.shelf.entry import Entry, fields, serves, shelf
from toolkit.world.shelf.values import draw, family, several
from toolkit.world.spec import TOOLS, Unsuitable

_AS_WRITTEN = 0.4  # share of tools that are shown under the entry's own name and parameters
_OPAQUE = 0.05
_REPEATS, _REPEATED = 0.5, 0.75  # share of tools whose results say arguments again, and of their arguments
# domains whose tools could reach into almost anything
_BROAD = frozenset(("database", "files", "http", "shell"))
_AFFIXES = ("do", "my", "app", "run", "api", "now", "tool", "v2", "service")


@dataclass(frozen=True, slots=True)
class Shown:
    """A tool under the name that one chat gives it; `names` maps its own parameters to those shown."""

    entry: Entry
    name: str
    names: Mapping[str, str]

    def call(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return self.name, {self.names[key]: value for key, value in arguments.items()}


class Display:
    """The tools of one chat: names in one case, no name twice.

    Where it `repeats`, the results of half the tools also say what was passed, so that what is new has to be read.
    """

    def __init__(self, d: Draft, *, repeats: bool = False) -> None:
        self.d = d
        self.repeats = repeats
        self.r: Random = d.r
        self.case = d.r.choices(("snake", "camel", "pascal"), (0.8, 0.14, 0.06))[0]
        self.hide = d.r.random() < _OPAQUE
        self.shown: dict[str, Shown] = {}

    # tools

    def show(self, entry: Entry, used: Sequence[str] = ()) -> Shown:
        """Put the tool on offer. Optional parameters that no call uses (`used` are used) may be left out."""
        r = self.r
        plain = not self.hide and r.random() < _AS_WRITTEN
        name = self._name(entry, plain)
        kept = [key for key, param in entry.params.items() if param.required or key in used or r.random() < 0.75]
        if not plain and r.random() < 0.4:
            r.shuffle(kept)
        rename = not plain and r.random() < 0.6
        names: dict[str, str] = {}
        for position, key in enumerate(kept):
            other = key
            if self.hide and r.random() < 0.5:
                other = f"arg{position + 1}"
            elif rename:
                other = parameter(r, key)
            other = cased(other, "camel" if self.case == "camel" else "snake")
            names[key] = key if other in names.values() else other
        if len(set(names.values())) < len(names):
            raise Unsuitable("one name for two parameters")
        about = entry.about[0] if plain else described(r, r.choice(entry.about))
        schema = {
            "type": "function",
            "function": {
                "name": name,
                "description": about,
                "parameters": {
                    "type": "object",
                    "properties": {names[key]: entry.params[key].schema for key in kept},
                    "required": [names[key] for key in kept if entry.params[key].required],
                },
            },
        }
        alias: dict[str, Any] = {"shelf": entry.name, "params": {other: key for key, other in names.items()}}
        # what it was before could be told by its being the only value
        if self.repeats and (any(field.name == "was" for field in entry.result) or r.random() < _REPEATS):
            repeated = [key for key in kept if r.random() < _REPEATED]
            ahead = [key for key in repeated if r.random() < 0.5]
            alias["repeats"] = [ahead, [key for key in repeated if key not in ahead]]
        self.d.invent(name, schema, alias)
        self.shown[name] = made = Shown(entry, name, names)
        return made

    def _name(self, entry: Entry, plain: bool) -> str:
        r = self.r
        for _ in range(8):
            if self.hide:
                return opaque(r, self.shown)
            name = entry.name if plain else r.choice(entry.names)
            if not plain and r.random() < 0.25:
                affix = r.choice((*_AFFIXES, entry.field))
                name = f"{affix}_{name}" if r.random() < 0.5 else f"{name}_{affix}"
            name = cased(name, self.case)
            if name not in self.shown and name not in TOOLS and bare(name) not in held_names():
                return name
            plain = False
        raise Unsuitable("no name left")

    # requests

    def slots(self, entry: Entry, names: Sequence[str]) -> dict[str, Any]:
        """Values for these parameters, different where one could be mistaken for another."""
        found: dict[str, Any] = {}
        taken: set[tuple[str, str]] = set()
        for name in dict.fromkeys(names):
            kind = entry.params[name].kind
            for _ in range(8):
                item = draw(kind, self.r, self.d.world)
                mark = (family(kind), str(said(item).value))
                if mark not in taken:
                    break
            else:
                raise Unsuitable("an argument twice")
            taken.add(mark)
            found[name] = item
        return found

    def line(self, entry: Entry, accept: Callable[[str], bool] | None = None, lines: Sequence[str] = ()) -> str:
        options = [line for line in lines or entry.say if accept is None or accept(line)]
        if not options:
            raise Unsuitable("no line")
        return self.r.choice(options)

    def fill(self, source: str, slots: Mapping[str, Any]) -> Filled:
        """The request, noted for the chat's meta."""
        self.d.templates.append(source)
        return self.d.fill(source, slots, vary=False)

    def values(self, entry: Entry, slot: str, count: int) -> list[Any]:
        return several(entry.params[slot].kind, self.r, self.d.world, count)

    # calls

    def serve(self, *calls: tuple[Shown, Mapping[str, Any], Mapping[str, Any]]) -> list[Any]:
        """Call (tool, arguments, slots as they were said) at once, and answer from the results."""
        results = self.d.call(*(tool.call(arguments) for tool, arguments, _ in calls))
        seed = self.r.randrange(64)
        texts = [
            self.answer(tool.entry, seed, arguments, slots, result)
            for (tool, arguments, slots), result in zip(calls, results, strict=True)
        ]
        self.d.say(" ".join(dict.fromkeys(texts)))
        return results

    def answer(
        self,
        entry: Entry,
        seed: int,
        arguments: Mapping[str, Any],
        slots: Mapping[str, Any],
        result: Mapping[str, Any],
    ) -> str:
        """The entry's words for a result, with values as the user said them."""
        words = {name: said(item).text.strip('"') for name, item in slots.items()}
        found = {field.name: result[field.name] for field in entry.result}
        fields = {**{name: shown(item) for name, item in arguments.items()}, **words, **found}
        return compose(entry.answers[seed % len(entry.answers)], fields)

    # what else is on offer

    def offer(self, *wanted: Entry) -> tuple[str, ...]:
        """Names of the tools shown so far and of others, many of them near, none of which could serve `wanted`."""
        d, r = self.d, self.r
        first = wanted[0]
        chosen = list(dict.fromkeys(d.needed))
        on_shelf = {self.shown[name].entry.name for name in chosen if name in self.shown}
        target = r.randint(max(len(chosen), 2), max(d.catalog.max_tools, len(chosen)))
        for _ in range(4 * target):
            if len(chosen) >= target:
                break
            which = r.random()
            if which < 0.7:
                one = r.choice(wanted)
                name = r.choice(fields()[one.field].names if which < 0.5 else tuple(shelf()))
                if name in on_shelf or any(serves(name, other.name) for other in wanted):
                    continue
                on_shelf.add(name)
                chosen.append(self.show(shelf()[name]).name)
            else:
                name = r.choice(_known(frozenset(one.field for one in wanted), first.field if which < 0.88 else ""))
                if name not in chosen:
                    chosen.append(name)
        r.shuffle(chosen)
        return tuple(chosen)


@cache
def _known(of: frozenset[str], near: str) -> tuple[str, ...]:
    """Built-in training tools that serve no request of these fields; those that come near to one, if it is named."""
    kin = frozenset().union(*(fields()[field].kin for field in of)) | _BROAD
    able = [name for name, tool in TOOLS.items() if tool.trained and tool.domain not in kin]
    close = [name for name in able if near and TOOLS[name].domain in fields()[near].near]
    return tuple(close or able)


def framed(frame: str, **requests: Filled) -> Filled:
    """Requests in a frame's words: `{a}` for the one named a, `{A}` where a sentence begins with it."""
    pieces = {name: request.pieces for name, request in requests.items()}
    parts = pieces | {name.upper(): capital(said) for name, said in pieces.items()}
    # a frame that begins with a request counts as one that begins in lower case
    return Filled(splice(frame, parts), {}, parse(frame.replace("{", "x{", 1)).imperative, False, frame)
