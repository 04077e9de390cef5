"""Chats whose request says what it is for: with a harmful purpose it is refused, with another it is served.

A purpose can also be all that is said; then it is refused, or no tool fits.

The request itself is of any tool, of the shelf or built-in, so that what is learnt is to read the purpose and not to
know a request by its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from tomllib import loads
from typing import Any

from toolkit.world.draft import Draft, ended, sample
from toolkit.world.language import Filled, Piece, capital, fill, parse, phrases, splice
from toolkit.world.lexicon import address, iban, person, phone, words
from toolkit.world.shelf.display import Display
from toolkit.world.shelf.entry import shelf
from toolkit.world.spec import TOOLS, Unsuitable

_SHELF = 0.5
_HARMFUL = 0.5
# domains whose tools are of no use for any of the aims that are fine
_APART = frozenset(("database", "git", "math", "weather"))
_DEEDS = 0.5  # of what is said without a request beside it: a deed asked for, not an aim of the user's
_IN_ONE = 0.6  # of requests that can be, request and purpose are one sentence


@cache
def table() -> Mapping[str, Any]:
    """The tables `frames`, `harm` and `fine` of purposes.toml."""
    return loads(files(__package__).joinpath("purposes.toml").read_text(encoding="utf-8"))


def purpose(d: Draft) -> tuple[dict[str, Any], str]:
    """One request with a purpose: flags for the chat's meta, and the chat's kind."""
    harmful = d.r.random() < _HARMFUL
    group = d.r.choice(tuple(table()["harm" if harmful else "fine"].values()))
    why = d.r.choice(group["why"]) if harmful else ""
    flags = (_of_shelf if d.r.random() < _SHELF else _built_in)(d, d.r.choice(group["do"]), why)
    return {**flags, "purpose": "harm" if harmful else "fine"}, "refuse" if harmful else "single"


def _of_shelf(d: Draft, wanted: str, why: str) -> dict[str, Any]:
    show = Display(d)
    entry = d.r.choice(tuple(shelf().values()))
    line = show.line(entry)
    slots = show.slots(entry, parse(line).slots)
    request = show.fill(line, slots)
    d.user(_with(d, request, wanted))
    tool = show.show(entry, list(request.arguments))
    d.needed.append(tool.name)
    if why:
        d.say(d.stock("refuse", why=why))
    else:
        show.serve((tool, request.arguments, slots))
    return {"offer": show.offer(entry), "shelf": True, **({"dangerous": True} if why else {})}


def _built_in(d: Draft, wanted: str, why: str) -> dict[str, Any]:
    name = d.r.choice(d.catalog.tools)
    d.needed.append(name)
    request = d.fill(d.pick(phrases()[name]), sample(d.r, d.world, name))
    d.user(_with(d, request, wanted))
    if why:
        d.say(d.stock("refuse", why=why))
        return {"dangerous": True}
    d.serve(name, request.arguments)
    return {}


def _with(d: Draft, request: Filled, wanted: str) -> Filled:
    """The request and what it is for, in one sentence or in two, in either order."""
    r, frames = d.r, table()["frames"]
    text = fill(wanted, refusal_slots(d)).pieces
    if {piece.text for piece in text if not piece.literal} & {x.text for x in request.pieces if not x.literal}:
        raise Unsuitable("said already")
    last = r.random() < 0.5
    if request.imperative and r.random() < _IN_ONE:
        pieces = splice(r.choice(frames["after" if last else "before"]), {"x": request.pieces, "p": text})
        return replace(request, pieces=ended(capital(pieces)), imperative=False)
    said = capital(splice(_open(d, frames["sentence_after" if last else "sentence_before"]), {"p": text}))
    asked = ended(capital(request.pieces))
    return replace(
        request, pieces=(*asked, Piece(" "), *said) if last else (*said, Piece(" "), *asked), imperative=False
    )


def harmful(d: Draft) -> dict[str, Any]:
    """A harmful aim or deed and nothing else, whatever the tools: refused."""
    group = d.r.choice(tuple(table()["harm"].values()))
    d.user(_alone(d, group))
    d.say(d.stock("refuse", why=d.r.choice(group["why"])))
    return {"dangerous": True, "offer": d.catalog.offer(d.r, ()), "aim": "harm"}


def harmless(d: Draft) -> tuple[str, ...]:
    """An aim or deed near to those in its words, which no tool on offer (whose names are returned) serves."""
    d.user(_alone(d, table()["fine"]["care"]))
    tools = d.catalog.offer(d.r, (), lambda name: TOOLS[name].domain not in _APART)
    d.decline("", [])
    return tools


def _alone(d: Draft, group: Mapping[str, Sequence[str]]) -> Filled:
    if d.r.random() < _DEEDS:
        source = d.r.choice(group["deed"])
    else:
        source = d.r.choice(table()["frames"]["alone"]).replace("{p}", d.r.choice(group["do"]))
    d.templates.append(source)
    return d.fill(source, refusal_slots(d), vary=False)


def _open(d: Draft, options: list[str]) -> str:
    return d.r.choice(options).replace("{weekday}", str(refusal_slots(d)["weekday"]))


def refusal_slots(d: Draft) -> dict[str, Any]:
    """Somebody, a company, a sum and so on, for what is meant to harm."""
    r = d.r
    whose = person(r)
    return {
        "person": whose,
        "first": whose.split()[0],
        "company": r.choice(words("company")),
        "host": r.choice(words("host")),
        "email": address(r),
        "phone": phone(r),
        "iban": iban(r),
        "street": f"{r.randint(1, 90)} {r.choice(words('street'))}",
        "topic": r.choice(words("topic")),
        "project": r.choice(words("project")),
        "user": r.choice(words("first")).lower(),
        "amount": r.choice((250, 480, 900, 1200, 2500, 3999, 5000, 7500)) + r.randrange(100),
        "number": r.choice((100, 200, 500, 1000, 5000, 20000)) + r.randrange(100),
        "weekday": r.choice(words("weekday")),
    }
