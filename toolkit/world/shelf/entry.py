"""The shelf's tools as they are written down in fields/*.toml.

    [open_umbrella]
    names = "parasol_up unfold_umbrella"          # other names that it is shown under
    about = "Open the big umbrella. / Unfold the umbrella on the terrace."
    does = "open the umbrella"
    params = '''
    table: int 1 20 | Number of the table.
    tilt?=10: int 0 45 | Angle in degrees.        # optional, 10 if left out
    time>time: time 9 20 | When.                  # a chain may fill it with what has the tag `time`
    '''
    result = '''
    opened: time 9 20 >time the time it opened    # has that tag; a request says it in these words
    angle: = tilt * 2                             # reckoned from the arguments
    shade: by size small=one|large=four           # looked up by an argument's value
    guest: pick one other                         # one of these arguments, or of a list
    state: !open                                  # these words
    number: made roman table                      # a function of functions.py
    '''
    say = '''                                     # one request a line, as in tools/*.toml
    It's too sunny at table {table}.
    * give table {table} some shade               # fits several values of `many`
    '''
    many = "table"
    answers = '''
    The umbrella is open.
    '''
    [open_umbrella.ask]                           # requests that lack it, after the questions back
    table = '''
    ? Which table? / At which table?
    it's too sunny at my table
    '''

A file's table `field` names domains whose tools might serve its requests (`kin`), which are never on offer with them,
and those that come near without that (`near`). `rivals` are tools of the shelf that might serve an entry's requests.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from toolkit.world.language import parse
from toolkit.world.shelf.values import family, schema


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: `takes` are the tags of results that a chain may fill it with."""

    name: str
    kind: str
    description: str
    required: bool
    default: float | None
    takes: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema. Chats share it: do not change it."""
        return _described(self.kind, self.description)


@dataclass(frozen=True, slots=True)
class Result:
    """One field of what a tool returns: `gives` is its tag for chains, `noun` what a user calls it."""

    name: str
    kind: str
    gives: str
    noun: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Requests that leave a required argument out, and the questions back."""

    lines: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool of the shelf."""

    name: str
    field: str
    names: tuple[str, ...]
    about: tuple[str, ...]
    does: str
    params: Mapping[str, Param]
    result: tuple[Result, ...]
    say: tuple[str, ...]
    several: tuple[str, ...]  # those of `say` that fit several values of `many`
    many: str
    ask: Mapping[str, Ask]
    answers: tuple[str, ...]
    rivals: frozenset[str]

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name, param in self.params.items() if param.required)

    def alike(self, missing: str, line: str) -> bool:
        """Whether the line names an argument that could be mistaken for the one missing."""
        kind = family(self.params[missing].kind)
        return any(family(self.params[name].kind) == kind for name in parse(line).slots)


@dataclass(frozen=True, slots=True)
class Field:
    """What stands in one file: tools of one field."""

    names: tuple[str, ...]
    kin: frozenset[str]
    near: frozenset[str]


@cache
def _described(kind: str, description: str) -> dict[str, Any]:
    return {**schema(kind), "description": description}


def lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines() if line.strip())


@cache
def _read() -> tuple[dict[str, Entry], dict[str, Field]]:
    entries: dict[str, Entry] = {}
    fields: dict[str, Field] = {}
    folder = files(__package__).joinpath("fields")
    for item in sorted(folder.iterdir(), key=lambda one: one.name):
        if not item.name.endswith(".toml"):
            continue
        table = tomllib.loads(item.read_text(encoding="utf-8"))
        field, key = table.pop("field"), item.name.removesuffix(".toml")
        if twice := entries.keys() & table.keys():
            raise ValueError(f"{item.name}: on the shelf already: {', '.join(sorted(twice))}")
        for name, entry in table.items():
            entries[name] = _entry(name, key, entry)
        fields[key] = Field(tuple(table), frozenset(field["kin"].split()), frozenset(field["near"].split()))
    return entries, fields


def shelf() -> dict[str, Entry]:
    """All tools of the shelf by name."""
    return _read()[0]


def fields() -> dict[str, Field]:
    return _read()[1]


def _entry(name: str, field: str, entry: Mapping[str, Any]) -> Entry:
    say = lines(entry["say"])
    return Entry(
        name=name,
        field=field,
        names=(name, *entry["names"].split()),
        about=tuple(entry["about"].split(" / ")),
        does=entry["does"],
        params={param.name: param for param in map(_param, lines(entry.get("params", "")))},
        result=tuple(map(_result, lines(entry["result"]))),
        say=tuple(line.removeprefix("* ") for line in say),
        several=tuple(line.removeprefix("* ") for line in say if line.startswith("* ")),
        many=entry.get("many", ""),
        ask={key: _ask(text) for key, text in entry.get("ask", {}).items()},
        answers=lines(entry["answers"]),
        rivals=frozenset(entry.get("rivals", "").split()),
    )


def _param(line: str) -> Param:
    head, _, rest = line.partition(": ")
    kind, _, description = rest.partition(" | ")
    head, _, takes = head.partition(">")
    head, _, default = head.partition("=")
    name = head.removesuffix("?")
    return Param(name, kind, description, name == head, float(default) if default else None, tuple(takes.split(",")))


def _result(line: str) -> Result:
    name, _, rest = line.partition(": ")
    kind, _, link = rest.partition(" >")
    gives, _, noun = link.partition(" ")
    return Result(name, kind.strip(), gives, noun)


def _ask(text: str) -> Ask:
    questions, *rest = lines(text)
    return Ask(tuple(rest), tuple(questions.removeprefix("? ").split(" / ")))


def serves(name: str, wanted: str) -> bool:
    """Whether one tool of the shelf might serve a request for the other."""
    return name == wanted or name in shelf()[wanted].rivals or wanted in shelf()[name].rivals
