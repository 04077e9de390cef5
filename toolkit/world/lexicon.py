"""Word lists that fill the slots of requests and furnish the simulated world."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True)
class City:
    name: str
    country: str
    latitude: float
    longitude: float
    utc_offset: float
    airport: str


@cache
def _lexicon() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("lexicon.toml").read_text(encoding="utf-8"))


@cache
def words(name: str) -> tuple[str, ...]:
    """The list of that name. Sentences end in a full stop or question mark, so they part at that plus a comma."""
    return tuple(item.strip() for item in _lexicon()[name].split(", "))


@cache
def cities() -> dict[str, City]:
    rows = (line.split(",") for line in _lexicon()["cities"].strip().splitlines())
    return {n: City(n, c, float(lat), float(lon), float(utc), code) for n, c, lat, lon, utc, code in rows}


def city(r: Random) -> str:
    return r.choice(tuple(cities()))


def person(r: Random) -> str:
    return f"{r.choice(words('first'))} {r.choice(words('last'))}"


def email_of(r: Random, name: str) -> str:
    return f"{name.lower().replace(' ', '.')}@{r.choice(words('domain'))}"


def address(r: Random) -> str:
    """An e-mail address."""
    return email_of(r, person(r))


def phone(r: Random) -> str:
    return f"+{r.randint(20, 98)} {r.randint(100, 999)} {r.randint(100000, 999999)}"


def song(r: Random) -> str:
    return f"{r.choice(words('song_a'))} {r.choice(words('song_b'))}"


def iban(r: Random) -> str:
    return "".join(["XX", str(r.randint(10, 99)), *(str(r.randint(1000, 9999)) for _ in range(3))])
