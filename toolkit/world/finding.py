"""Chains in which it matters whether a search finds anything: one request where it does, another where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from tomllib import loads
from typing import Any

from toolkit.world.catalog import could_serve
from toolkit.world.draft import Draft, sample
from toolkit.world.language import join, phrases, shown
from toolkit.world.shelf.alternatives import alternatives, serve_one, swapped, words_of
from toolkit.world.shelf.display import Display, framed
from toolkit.world.shelf.entry import fields
from toolkit.world.spec import TOOLS, Unsuitable
from toolkit.world.world import World

_NOTHING = 0.5
# built-in tools that search, what their result has, and the argument that decides whether there is any
_SEARCHES = {
    "search_notes": ("notes", "query"), "find_todo": ("todos", "text"), "search_events": ("events", "keyword"),
    "mails_from": ("mails", "sender"), "search_mail": ("mails", "query"), "find_contact": ("contacts", "name"),
    "find_files": ("paths", "pattern"), "count_rows": ("count", "value"), "list_events": ("events", "date"),
}  # fmt: skip


@cache
def lines(key: str = "say") -> Sequence[str]:
    return tuple(loads(files(__package__).joinpath("finding.toml").read_text(encoding="utf-8"))[key])


def found_or_not(d: Draft) -> dict[str, Any]:
    """A built-in search, and one of two requests of the shelf by whether it found anything."""
    r, show = d.r, Display(d, repeats=True)
    name = r.choice(tuple(_SEARCHES))
    key, argument = _SEARCHES[name]
    slots = sample(r, d.world, name)
    if r.random() < _NOTHING:  # what another world has is mostly not here
        slots[argument] = sample(r, World(r.getrandbits(32)), name)[argument]
    look = d.fill(d.pick(phrases()[name], lambda line: line.imperative), slots)
    one, other = alternatives(show)
    domain = TOOLS[name].domain
    if any(domain in fields()[choice.entry.field].kin for choice in (one, other)):
        raise Unsuitable("one tool might do for both")
    frame = r.choice(lines("instead" if other.instead else "say"))
    d.user(framed(frame, a=look, b=one.filled, c=other.filled, **swapped(other)))
    d.needed.append(name)
    (result,) = d.call((name, look.arguments))
    found = result[key]
    taken = other if found else one
    d.because("empty", holds=not found, found=_listed(found), then=words_of(taken))
    serve_one(show, taken, {one.entry.name: one, other.entry.name: other})
    offer = show.offer(one.entry, other.entry)
    if any(item in TOOLS and item != name and could_serve(item, name) for item in offer):
        raise Unsuitable("another tool that searches")
    return {"offer": offer, "shelf": True, "chain": "found or not"}


def _listed(found: Any) -> str:
    """What was found, by its names: "n12, n15 and others"."""
    if not isinstance(found, list) or not found:
        return shown(found)
    names = [shown(row["id"] if isinstance(row, dict) else row) for row in found]
    return join([*names[:2], *(["others"] if len(names) > 2 else [])])
