"""Chains over invented tools: a later call is made from what an earlier one returned.

Most can't be told from one call by their words alone: an id that is said belongs to another thing, what is overwritten
has to be read first, or what happens depends on a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import Invented, Thing
from toolkit.world.language import said, shown, spoken
from toolkit.world.rationale import denied, versus
from toolkit.world.scene import Scene, ordered
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of

Flags = dict[str, Any]


def _number(thing: Thing, r: Random) -> str:
    fit = [key for key in thing.attributes if kind_of(key) in ("count", "measure", "money")]
    if not fit:
        raise Unsuitable("nothing to compare")
    return r.choice(fit)


def multi_step(d: Draft) -> Flags:
    """A later call made from what an earlier one returned, in one of the patterns."""
    s = Scene(d)
    thing = s.shop.thing()
    return _chain(s, thing, d.r.choice(_PATTERNS))


def _chain(s: Scene, thing: Thing, pattern: Callable[[Scene, Thing], Sequence[Invented]]) -> Flags:
    wanted = pattern(s, thing)
    broad = ("batch", "total", "find", "match", *(["get"] if pattern is _previous else []))
    return {
        "offer": s.offer(*wanted, avoid=lambda other: other.operation in broad),
        "invented": True,
        "chain": f"invented {pattern.__name__[1:]}",
    }


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


def _above(s: Scene, thing: Thing) -> Sequence[Invented]:
    attribute = _number(thing, s.r)
    look = s.shop.make("get", thing, attribute)
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(look, *acts)
    (one,) = s.ids(look, "id", 1)
    arguments = {look.slot("id"): one}
    # the bar is near what the world holds, so that both ways are taken
    found = s.d.peek(look.name, arguments)[attribute]
    bar = max(1, round(found * s.r.choice((0.6, 0.8, 1.2, 1.5))))
    if bar == found:
        raise Unsuitable("just at the bar")
    source = s.line(
        "say", "above", look, id=s.slot(look, "id"), bar="{_bar}", act2=acts[1].action,
        done2=thing.actions[acts[1].action], act=acts[0].action, done=thing.actions[acts[0].action],
    )  # fmt: skip
    s.d.user(s.filled(source, {look.slot("id"): one, "_bar": bar}))
    s.call((look, arguments))
    act = acts[0] if found > bar else acts[1]
    _against(s, look, found, bar, "above", found > bar, f"{act.action} {one}")
    s.serve(act, {act.slot("id"): one})
    return look, *acts


def _higher(s: Scene, thing: Thing) -> Sequence[Invented]:
    look = s.shop.make("get", thing, _number(thing, s.r))
    act = s.shop.make("act", thing)
    s.ready(look, act)
    ids = s.ids(look, "id", 2)
    key = s.r.choice(("higher", "lower"))
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", key, look, id=s.slot(look, "id"), other="{_other}", **words)
    s.d.user(s.filled(source, {look.slot("id"): ids[0], "_other": ids[1]}))
    rows = s.call(*((look, {look.slot("id"): item}) for item in ids))
    found = [row[look.attribute] for row in rows]
    if found[0] == found[1]:
        raise Unsuitable("alike")
    best = ids[found.index(max(found) if key == "higher" else min(found))]
    s.d.because("which", **versus(list(map(shown, ids)), found, ids.index(best), key))
    s.serve(act, {act.slot("id"): best})
    return look, act


def _found(s: Scene, thing: Thing, key: str) -> tuple[Invented, Invented, list[Any]]:
    find, act = s.shop.make("find", thing), s.shop.make("act", thing)
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
    make, act = s.shop.make("create", thing), s.shop.make("act", thing)
    s.ready(make, act)
    words, slots = s.fields(make)
    more = {"fields": words, "act": act.action, "done": thing.actions[act.action]}
    request = s.filled(s.line("say", "made", make, **more), slots)
    s.d.user(request)
    (found,) = s.call((make, request.arguments))
    s.serve(act, {act.slot("id"): found["id"]})
    return make, act


def _before(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What is overwritten has to be read first."""
    look = s.shop.make("get", thing)
    put = s.shop.make("set", thing, look.attribute)
    s.ready(look, put)
    one, other = s.ids(look, "id", 2)
    new = s.draw(put, "value")
    source = s.line("say", "before", put, id=s.slot(put, "id"), other="{_other}", value=s.slot(put, "value"))
    s.d.user(s.filled(source, {put.slot("id"): one, "_other": other, put.slot("value"): new}))
    (found,) = s.call((look, {look.slot("id"): one}))
    s.d.because("before", value=found[look.attribute], other=other)
    s.serve_all(
        (put, ordered(put, {put.slot("id"): one, put.slot("value"): said(new).value})),
        (put, ordered(put, {put.slot("id"): other, put.slot("value"): found[look.attribute]})),
    )
    return look, put


def _previous(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What is overwritten is told by the call that does it, and nothing on offer reads it before."""
    put = s.shop.make("set", thing)
    put = replace(put, result={**put.result, "previous": put.params["value"][1]})
    put.schema["function"]["description"] += f" Returns the {spoken(put.attribute)} it had before."
    s.shop.tools[put.name] = put
    s.ready(put)
    one, other = s.ids(put, "id", 2)
    new = s.draw(put, "value")
    source = s.line("say", "previous", put, id=s.slot(put, "id"), other="{_other}", value=s.slot(put, "value"))
    s.d.user(s.filled(source, {put.slot("id"): one, "_other": other, put.slot("value"): new}))
    (found,) = s.call((put, ordered(put, {put.slot("id"): one, put.slot("value"): said(new).value})))
    s.d.because("before", value=found["previous"], other=other)
    s.serve(put, ordered(put, {put.slot("id"): other, put.slot("value"): found["previous"]}))
    return (put,)


def _noted(s: Scene, thing: Thing) -> Sequence[Invented]:
    """A value that is looked up goes into words that the user gave."""
    look = s.shop.make("get", thing, _number(thing, s.r))
    act = s.shop.make("act", thing)
    if "reason" not in act.params:
        raise Unsuitable("takes no reason")
    s.ready(look, act)
    (one,) = s.ids(look, "id", 1)
    text = s.r.choice(_NOTES).format(attr=spoken(look.attribute))
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", "noted", look, id=s.slot(look, "id"), reason="{_reason}", **words)
    s.d.user(s.filled(source, {look.slot("id"): one, "_reason": f'"{text}"'}))
    (found,) = s.call((look, {look.slot("id"): one}))
    reason = text.replace("N", shown(found[look.attribute]))
    s.d.because("within", noun=f"the {spoken(look.attribute)}", value=found[look.attribute], whole=reason)
    s.serve(act, ordered(act, {act.slot("id"): one, act.slot("reason"): reason}))
    return look, act


def _below(s: Scene, thing: Thing) -> Sequence[Invented]:
    """A value is changed only where it is too low."""
    attribute = _number(thing, s.r)
    look, put = s.shop.make("get", thing, attribute), s.shop.make("set", thing, attribute)
    act = s.shop.make("act", thing)
    s.ready(look, put, act)
    (one,) = s.ids(look, "id", 1)
    found = s.d.peek(look.name, {look.slot("id"): one})[attribute]
    bar = max(1, round(found * s.r.choice((0.6, 0.8, 1.2, 1.5))))
    if bar == found:
        raise Unsuitable("just at the bar")
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", "below", look, id=s.slot(look, "id"), bar="{_bar}", **words)
    s.d.user(s.filled(source, {look.slot("id"): one, "_bar": bar}))
    s.call((look, {look.slot("id"): one}))
    then = f"set it to {bar}" if found < bar else f"{act.action} {one}"
    _against(s, look, found, bar, "below", found < bar, then)
    if found < bar:
        s.serve(put, ordered(put, {put.slot("id"): one, put.slot("value"): bar}))
    else:
        s.serve(act, {act.slot("id"): one})
    return look, put, act


def _linked(s: Scene, thing: Thing) -> Sequence[Invented]:
    """The id that is said is not that of the thing to act on: it has to be looked up."""
    other = s.shop.thing()
    if other is thing:
        raise Unsuitable("linked with itself")
    look = s.shop.make("get", thing, other.key)
    last = s.shop.make(s.r.choice(("act", "act", "get")), other)
    s.ready(look, last)
    (one,) = s.ids(look, "id", 1)
    words = {"act": last.action, "done": other.actions[last.action], "attr2": spoken(last.attribute)}
    source = s.line("say", f"linked_{last.operation}", look, id=s.slot(look, "id"), **words)
    s.d.user(s.filled(source, {look.slot("id"): one}))
    (found,) = s.call((look, {look.slot("id"): one}))
    if found[other.key] == one:
        raise Unsuitable("one id for both")
    s.serve(last, {last.slot("id"): found[other.key]})
    return look, last


def _closest(s: Scene, thing: Thing) -> Sequence[Invented]:
    match, act = s.shop.make("match", thing), s.shop.make("act", thing)
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


def _empty(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What happens depends on whether a search finds anything."""
    find = s.shop.make("find", thing)
    find = replace(find, result={key: f"?{kind}" for key, kind in find.result.items()})
    s.shop.tools[find.name] = find
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(find, *acts)
    (one,) = s.ids(acts[0], "id", 1)
    value = s.draw(find, "value")
    ways = {f"{name}{number}": word for number, act in enumerate(acts, 1) for name, word in act.words().items()}
    words = {
        "one": "{_one}",
        "act": acts[0].action,
        "act2": acts[1].action,
        "done": ways["done1"],
        "done2": ways["done2"],
    }
    source = s.line("say", "empty", find, value=s.slot(find, "value"), **words)
    s.d.user(s.filled(source, {find.slot("value"): value, "_one": one}))
    (found,) = s.call((find, {find.slot("value"): said(value).value}))
    act = acts[1] if found["ids"] else acts[0]
    s.d.because("empty", holds=not found["ids"], found=shown(found["ids"]), then=f"{act.action} {one}")
    s.serve(act, {act.slot("id"): one})
    return find, *acts


def _none(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What happens depends on whether a number is 0."""
    look = s.shop.make("get", thing, _number(thing, s.r))
    look = replace(look, result={key: f"?{kind}" for key, kind in look.result.items()})
    s.shop.tools[look.name] = look
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(look, *acts)
    (one,) = s.ids(look, "id", 1)
    words = {"act": acts[0].action, "act2": acts[1].action}
    done = {"done": thing.actions[words["act"]], "done2": thing.actions[words["act2"]]}
    source = s.line("say", "none", look, id=s.slot(look, "id"), **words, **done)
    s.d.user(s.filled(source, {look.slot("id"): one}))
    (found,) = s.call((look, {look.slot("id"): one}))
    number = found[look.attribute]
    act = acts[1] if number else acts[0]
    noun = f"the {spoken(look.attribute)}"
    s.d.because("zero", holds=not number, noun=noun, value=number, then=f"{act.action} {one}")
    s.serve(act, {act.slot("id"): one})
    return look, *acts


def _closer(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What one comparison finds is compared with others, so that what is compared with what has to be read."""
    match = s.shop.make("match", thing)
    s.ready(match)
    one, *rest = s.ids(match, "id", s.r.choice((5, 5, 6)))
    first, second = rest[:-2], rest[-2:]
    source = s.line("say", "closer", match, id=s.slot(match, "id"), ids=s.slot(match, "ids"), others="{_others}")
    s.d.user(s.filled(source, {match.slot("id"): one, match.slot("ids"): first, "_others": second}))
    (found,) = s.call((match, ordered(match, {match.slot("id"): one, match.slot("ids"): first})))
    s.d.because("closest", item=shown(found["closest"]))
    s.serve(match, ordered(match, {match.slot("id"): found["closest"], match.slot("ids"): second}))
    return (match,)


def deciding(d: Draft) -> Flags:
    """Those of the chains in which a result decides, or what is compared with what."""
    s = Scene(d)
    return _chain(s, s.shop.thing(), d.r.choice(_DECIDING))


def _against(s: Scene, look: Invented, found: Any, bar: int, side: str, holds: bool, then: str) -> None:
    noun, test = f"the {spoken(look.attribute)}", f"is {side} {bar}"
    s.d.because("bound", holds=holds, noun=noun, value=found, bound=bar, test=test, denied=denied(test), then=then)


_NOTES = (
    *("{attr} N", "{attr}: N", "N now", "N too many"),
    *("it was at N", "N by the record", "only N left", "N, checked twice"),
)
_PATTERNS = (
    *(_copy, _above, _above, _higher, _higher, _each, _first, _made),
    *(_before, _previous, _previous, _noted, _noted, _below, _linked, _linked, _linked, _closest, _summed),
)
_DECIDING = (
    *(_above, _above, _below, _higher, _higher, _before, _previous, _noted),
    *(_empty, _empty, _none, _none, _closer, _closer),
)
