"""Two requests of which a result decides which is served: for two tools, or for one, with other values or one other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.world.language import Filled, Piece, fill, parse, plain, said
from toolkit.world.shelf.display import Display
from toolkit.world.shelf.entry import Entry, serves, shelf
from toolkit.world.shelf.values import draw
from toolkit.world.spec import Unsuitable

_TWO_TOOLS = 0.5  # between requests of two tools; else two of one
_ONE_VALUE = 0.6  # of those of one tool, the second is the first with another value


@dataclass(frozen=True, slots=True)
class Request:
    """A request, filled in: its words, its call's arguments and the slots as they are said."""

    entry: Entry
    filled: Filled
    slots: Mapping[str, Any]
    instead: tuple[str, str] | None = None  # of an alternative: a value's words in the first, and what it has for them


def ready(show: Display, entry: Entry, *, several: bool = False, remark: bool = False) -> Request:
    """A request for the tool, with `several` for two values of its `many`; a `remark` is one that asks or states."""
    lines = entry.several if several else entry.say
    line = show.line(entry, lambda line: _fits(line, remark) and (several or bool(parse(line).slots)), lines)
    drawn = show.slots(entry, parse(line).slots)
    if several:
        drawn[entry.many] = show.values(entry, entry.many, 2)
    return Request(entry, show.fill(line, drawn), drawn)


def _fits(line: str, remark: bool) -> bool:
    return line.rstrip().endswith((".", "?", "!")) if remark else parse(line).imperative


def words_of(request: Request) -> str:
    """A request as a rationale says it."""
    return plain(request.filled.pieces)


def alternatives(show: Display, first: Entry | None = None) -> tuple[Request, Request]:
    """Two requests that neither the first tool (of the shelf) nor each other's could serve, unless they are of one."""
    one = show.r.choice(tuple(shelf().values()))
    other = show.r.choice(tuple(shelf().values())) if show.r.random() < _TWO_TOOLS else one
    apart = {(one.name, other.name)} if one is not other else set()
    if first is not None:
        apart |= {(one.name, first.name), (other.name, first.name)}
    if any(serves(a, b) for a, b in apart):
        raise Unsuitable("one tool might do for both")
    if one is other and show.r.random() < _ONE_VALUE:
        return _but_for_one(show, ready(show, one))
    requests = ready(show, one), ready(show, other)
    if requests[0].filled.arguments == requests[1].filled.arguments:
        raise Unsuitable("twice the same")
    return requests


def _but_for_one(show: Display, one: Request) -> tuple[Request, Request]:
    """The request, and the same with another value in one place, which its words say once."""
    name = show.r.choice(tuple(one.slots))
    item, other = one.slots[name], draw(one.entry.params[name].kind, show.r, show.d.world)
    text, new = said(item).text, said(other).text
    values = [said(x).value for x in one.slots.values()]
    if plain(one.filled.pieces).count(text) != 1 or said(other).value in values or said(other).dated:
        raise Unsuitable("not one value for another")
    slots = {**one.slots, name: other}
    return one, Request(one.entry, fill(one.filled.template, slots), slots, (text, new))


def swapped(other: Request) -> dict[str, Filled]:
    """What a frame says of the alternative: `{x}` in the first request is `{y}` in it."""
    texts = dict(zip("xy", other.instead or (), strict=False))
    return {name: Filled((Piece(text, literal=False),), {}, False, False, "") for name, text in texts.items()}


def entries(first: Entry, one: Request, other: Request) -> list[Entry]:
    """The tools of a look and of the requests, each once."""
    return [first, one.entry] if one.entry is other.entry else [first, one.entry, other.entry]


def serve_one(show: Display, taken: Request, others: Mapping[str, Request]) -> None:
    """Serve the request that is taken; the tools of all of them are on offer."""
    used = {name for one in (taken, *others.values()) if one.entry is taken.entry for name in one.filled.arguments}
    for one in others.values():
        if one.entry is not taken.entry:
            show.d.needed.append(show.show(one.entry, list(one.filled.arguments)).name)
    tool = show.show(taken.entry, sorted(used))
    show.d.needed.append(tool.name)
    show.serve((tool, taken.filled.arguments, taken.slots))
