"""Chains over invented tools: a later call is made from what an earlier one returned.

Most can't be told from one call by their words alone: an id that is said belongs to another thing, what is overwritten
has to be read first, or what happens depends on a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import Invented, Thing
from toolkit.world.invented_decisions import (
    Flags,
    Pattern,
    above,
    before,
    below,
    chain,
    closest_with,
    either,
    higher,
    noted,
    previous,
)
from toolkit.world.joining import joined
from toolkit.world.language import said, spoken
from toolkit.world.scene import Scene, ordered
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of

_JOINED = 0.1
_OPEN = 0.5  # of tools that act on what was found take another thing where no id is passed


def multi_step(d: Draft) -> Flags:
    """A later call made from what an earlier one returned, in one of the patterns, or from a path put together."""
    return joined(d) if d.r.random() < _JOINED else chain(d, d.r.choice(_PATTERNS))


def _copy(s: Scene, thing: Thing) -> Sequence[Invented]:
    look = s.shop.make("get", thing)
    put = s.shop.make("set", thing, look.attribute)
    s.ready(look, put)
    one, other = s.ids(look, "id", 2)
    source = s.line("say", "copy", look, id=s.slot(look, "id"), other="{_other}")
    s.d.user(s.filled(source, {look.slot("id"): one, "_other": other}))
    (found,) = s.call((look, {look.slot("id"): one}))
    s.serve(put, {put.slot("id"): other, put.slot("value"): found[look.attribute]})
    return look, put


def _found(s: Scene, thing: Thing, key: str) -> tuple[Invented, Invented, list[Any]]:
    find, act = s.shop.make("find", thing), _left_open(s, s.shop.make("act", thing))
    s.ready(find, act)
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", key, find, value=s.slot(find, "value"), **words)
    request = s.filled(source, {find.slot("value"): s.draw(find, "value")})
    s.d.user(request)
    (found,) = s.call((find, request.arguments))
    if not found["ids"]:
        raise Unsuitable("nothing found")
    return find, act, found["ids"]


def _each(s: Scene, thing: Thing) -> Sequence[Invented]:
    find, act, ids = _found(s, thing, "all")
    s.serve_all(*((act, {act.slot("id"): item}) for item in ids))
    return find, act


def _first(s: Scene, thing: Thing) -> Sequence[Invented]:
    find, act, ids = _found(s, thing, "first")
    s.serve(act, {act.slot("id"): ids[0]})
    return find, act


def _made(s: Scene, thing: Thing) -> Sequence[Invented]:
    make, act = s.shop.make("create", thing), _left_open(s, s.shop.make("act", thing))
    s.ready(make, act)
    words, slots = s.fields(make)
    more = {"fields": words, "act": act.action, "done": thing.actions[act.action]}
    request = s.filled(s.line("say", "made", make, **more), slots)
    s.d.user(request)
    (found,) = s.call((make, request.arguments))
    s.serve(act, {act.slot("id"): found["id"]})
    return make, act


def _linked(s: Scene, thing: Thing) -> Sequence[Invented]:
    """The id that is said is not that of the thing to act on: it has to be looked up."""
    other = s.shop.thing()
    if other is thing:
        raise Unsuitable("linked with itself")
    look = s.shop.make("get", thing, other.key)
    last = _left_open(s, s.shop.make(s.r.choice(("act", "act", "get", "set", "set")), other))
    s.ready(look, last)
    (one,) = s.ids(look, "id", 1)
    words = {"act": last.action, "done": other.actions[last.action], "attr2": spoken(last.attribute)}
    source = s.line("say", f"linked_{last.operation}", look, id=s.slot(look, "id"), new="{_new}", **words)
    new = {"_new": s.draw(last, "value")} if last.operation == "set" else {}
    s.d.user(s.filled(source, {look.slot("id"): one, **new}))
    (found,) = s.call((look, {look.slot("id"): one}))
    if found[other.key] == one:
        raise Unsuitable("one id for both")
    value = {last.slot("value"): said(item).value for item in new.values()}
    s.serve(last, ordered(last, {last.slot("id"): found[other.key], **value}))
    return look, last


def _first_set(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What a search finds gets a value, from a tool that takes some other thing where none is named."""
    find, put = s.shop.make("find", thing), _left_open(s, s.shop.make("set", thing))
    if find.attribute == put.attribute:
        raise Unsuitable("found by what is set")
    s.ready(find, put)
    value, new = s.draw(find, "value"), s.draw(put, "value")
    words = {"value": s.slot(find, "value"), "attr2": spoken(put.attribute), "new": "{_new}"}
    source = s.line("say", "first_set", find, **words)
    s.d.user(s.filled(source, {find.slot("value"): value, "_new": new}))
    (found,) = s.call((find, {find.slot("value"): said(value).value}))
    if not found["ids"] or said(new).value == said(value).value:
        raise Unsuitable("nothing found, or one value for both")
    s.serve(put, ordered(put, {put.slot("id"): found["ids"][0], put.slot("value"): said(new).value}))
    return find, put


def _left_open(s: Scene, tool: Invented) -> Invented:
    """The tool, half the time one that does without an id: it would take another thing."""
    name = tool.slot("id")
    if s.r.random() < _OPEN and tool.operation != "get":
        parameters = tool.schema["function"]["parameters"]
        parameters["required"] = [key for key in parameters["required"] if key != name]
        which = s.r.choice(("newest", "latest", "first", "last", "usual"))
        parameters["properties"][name] = {
            **parameters["properties"][name],
            "description": f"Id of the {tool.thing.one}; the {which} one if left out.",
        }
    return tool


def _closest(s: Scene, thing: Thing) -> Sequence[Invented]:
    match, act = s.shop.make("match", thing), _left_open(s, s.shop.make("act", thing))
    s.ready(match, act)
    one, *rest = s.ids(match, "id", s.r.choice((3, 4, 4)))
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", "closest", match, id=s.slot(match, "id"), ids=s.slot(match, "ids"), **words)
    request = s.filled(source, {match.slot("id"): one, match.slot("ids"): rest})
    s.d.user(request)
    (found,) = s.call((match, request.arguments))
    s.serve(act, {act.slot("id"): found["closest"]})
    return match, act


def _summed(s: Scene, thing: Thing) -> Sequence[Invented]:
    fit = [key for key in thing.attributes if kind_of(key) in ("measure", "money")]
    if not fit:
        raise Unsuitable("nothing to add up")
    total = s.shop.make("total", thing, s.r.choice(fit))
    put = s.shop.make("set", thing, total.attribute)
    s.ready(total, put)
    other, *ids = s.ids(put, "id", s.r.choice((3, 3, 4)))
    source = s.line("say", "summed", total, ids=s.slot(total, "ids"), other="{_other}")
    request = s.filled(source, {total.slot("ids"): ids, "_other": other})
    s.d.user(request)
    (found,) = s.call((total, request.arguments))
    s.serve(put, ordered(put, {put.slot("id"): other, put.slot("value"): found["total"]}))
    return total, put


_PATTERNS: tuple[Pattern, ...] = (
    *(_copy, above, either, either, higher, higher, _each, _first, _first_set, _first_set, _made),
    *(before, previous, previous, noted, noted, below, _linked, _linked, _linked, _closest, closest_with, _summed),
)
