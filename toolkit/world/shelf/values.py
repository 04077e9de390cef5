"""Values for the arguments and results of the shelf's tools, by a kind written in words such as `int 2 12`.

one of a|b=said|c=said/said too   an enum; `one of NAME` takes a list of pools.toml or of the world's lexicon
any of a|b, any of NAME           a string that the schema leaves open
quoted NAME                       the same, in quotation marks where a user says it
int LOW HIGH STEP                 STEP may be left out
num LOW HIGH STEP                 a number in steps such as 0.5
money LOW HIGH                    with or without cents
date LOW HIGH                     days from today
time LOW HIGH                     between two hours
list KIND                         two to four different ones
flag                              a boolean, which only a template's own words ask for
person, city, email, phone, text, code, url   as invented tools have them
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

from toolkit.world import lexicon
from toolkit.world.language import Said, day, moment, neat, said, small
from toolkit.world.spec import Unsuitable
from toolkit.world.values import value

if TYPE_CHECKING:
    from toolkit.world.world import World


@cache
def _pools() -> dict[str, str]:
    return tomllib.loads(files(__package__).joinpath("pools.toml").read_text(encoding="utf-8"))


@cache
def choices(name: str) -> dict[str, tuple[str, ...]]:
    """Values with the ways to say each; a list by its name, or one written out with bars between."""
    if "|" in name:
        items = name.split("|")
    else:
        items = _pools()[name].split(", ") if name in _pools() else list(lexicon.words(name))
    parts = [item.partition("=") for item in items]
    return {key: tuple(ways.split("/")) if ways else (key,) for key, _, ways in parts}


@cache
def _parsed(kind: str) -> tuple[str, str, tuple[float, ...]]:
    """The kind's name, what follows it, and that as numbers where it is numbers."""
    name, _, rest = kind.partition(" ")
    if name in ("one", "any"):
        return name, rest.removeprefix("of "), ()
    if name in ("int", "num", "money", "date", "time"):
        return name, rest, tuple(map(float, rest.split()))
    return name, rest, ()


def family(kind: str) -> str:
    """What two kinds have in common that can be taken for each other."""
    name, rest, _ = _parsed(kind)
    if name in ("int", "num", "money"):
        return "number"
    return f"one of {rest}" if name in ("one", "any", "quoted") else name


def draw(kind: str, r: Random, w: World) -> Any:
    """A value of the kind, or a `Said` where it is said in other words."""
    name, rest, numbers = _parsed(kind)
    if name in ("one", "any", "quoted"):
        options = choices(rest)
        chosen = r.choice(tuple(options))
        text = r.choice(options[chosen])
        if name == "quoted":
            return Said(chosen, f'"{chosen}"')
        return chosen if text == chosen else Said(chosen, text)
    if name == "list":
        return several(rest, r, w, r.choice((2, 2, 3, 3, 4)))
    if name == "int":
        low, high, step = (*map(int, numbers), 1)[:3]
        return small(r, low, high) if high <= 10 and step == 1 else r.randrange(low, high + 1, step)
    if name == "num":
        low_, high_, step_ = numbers
        return neat(round(low_ + step_ * r.randint(0, round((high_ - low_) / step_)), 2))
    if name == "money":
        whole = r.randint(int(numbers[0]), int(numbers[1]))
        return whole if r.random() < 0.5 else neat(round(whole + r.randrange(100) / 100, 2))
    if name == "date":
        return day(r, w.today, int(numbers[0]), int(numbers[1]))
    if name == "time":
        return moment(r, int(numbers[0]), int(numbers[1]), 5)
    if name == "phone":
        return lexicon.phone(r)
    if name == "flag":
        return r.random() < 0.5
    return value(kind, r, w)


def several(kind: str, r: Random, w: World, count: int) -> list[Any]:
    """Different values of one kind."""
    found: dict[Any, Any] = {}
    for _ in range(12 * count):
        item = draw(kind, r, w)
        found.setdefault(said(item).value, item)
        if len(found) == count:
            return list(found.values())
    raise Unsuitable("not enough different values")


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of the kind's values, without a description."""
    name, rest, _ = _parsed(kind)
    if name == "one":
        return {"type": "string", "enum": list(choices(rest))}
    if name == "list":
        return {"type": "array", "items": schema(rest)}
    return {"type": {"int": "integer", "num": "number", "money": "number", "flag": "boolean"}.get(name, "string")}
