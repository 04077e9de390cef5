"""Chains over invented tools in which a result decides: which of two things is done, to what, and with what.

The usual mix of chains (`toolkit.world.invented_chains`) has some of them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import Invented, Thing, things
from toolkit.world.invented_figures import figure, words_for
from toolkit.world.language import said, shown, spoken
from toolkit.world.rationale import denied, versus
from toolkit.world.scene import Scene, ordered
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of, tables

Flags = dict[str, Any]
Pattern = Callable[[Scene, Thing], Sequence[Invented]]


def chain(d: Draft, pattern: Pattern) -> Flags:
    """A chain of the pattern, over tools whose results mostly say more than what is new."""
    s = Scene(d, repeats=True)
    wanted = pattern(s, s.shop.thing())
    broad = ("batch", "total", "find", "match", *(["get"] if pattern is previous else []))
    return {
        "offer": s.offer(*wanted, avoid=lambda other: other.operation in broad),
        "invented": True,
        "chain": f"invented {pattern.__name__.strip('_')}",
    }


def deciding(d: Draft) -> Flags:
    """One of those in which a result decides, or what is compared with what."""
    return chain(d, d.r.choice(_DECIDING))


def above(s: Scene, thing: Thing) -> Sequence[Invented]:
    look, key, noun = figure(s, thing)
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(look, *acts)
    (one,) = s.ids(look, "id", 1)
    arguments = {look.slot("id"): one}
    found, bar = _bar(s, look, arguments, key)
    source = s.line(
        "say", "above", look, id=s.slot(look, "id"), bar="{_bar}", act2=acts[1].action,
        done2=thing.actions[acts[1].action], act=acts[0].action, done=thing.actions[acts[0].action],
        **words_for(look, key, noun),
    )  # fmt: skip
    s.d.user(s.filled(source, {look.slot("id"): one, "_bar": bar}))
    s.call((look, arguments))
    act = acts[0] if found > bar else acts[1]
    _against(s, noun, found, bar, "above", found > bar, f"{act.action} {one}")
    s.serve(act, {act.slot("id"): one})
    return look, *acts


def below(s: Scene, thing: Thing) -> Sequence[Invented]:
    """A value is changed only where it is too low."""
    look, key, noun = figure(s, thing, alone=True)
    put = s.shop.make("set", thing, look.attribute)
    act = s.shop.make("act", thing)
    s.ready(look, put, act)
    (one,) = s.ids(look, "id", 1)
    found, bar = _bar(s, look, {look.slot("id"): one}, key)
    words = {"act": act.action, "done": thing.actions[act.action]}
    source = s.line("say", "below", look, id=s.slot(look, "id"), bar="{_bar}", **words)
    s.d.user(s.filled(source, {look.slot("id"): one, "_bar": bar}))
    s.call((look, {look.slot("id"): one}))
    then = f"set it to {bar}" if found < bar else f"{act.action} {one}"
    _against(s, noun, found, bar, "below", found < bar, then)
    if found < bar:
        s.serve(put, ordered(put, {put.slot("id"): one, put.slot("value"): bar}))
    else:
        s.serve(act, {act.slot("id"): one})
    return look, put, act


def higher(s: Scene, thing: Thing) -> Sequence[Invented]:
    look, key, noun = figure(s, thing)
    act = s.shop.make("act", thing)
    s.ready(look, act)
    ids = s.ids(look, "id", 2)
    word = s.r.choice(("higher", "lower"))
    words = {"act": act.action, "done": thing.actions[act.action], **words_for(look, key, noun)}
    source = s.line("say", word, look, id=s.slot(look, "id"), other="{_other}", **words)
    s.d.user(s.filled(source, {look.slot("id"): ids[0], "_other": ids[1]}))
    rows = s.call(*((look, {look.slot("id"): item}) for item in ids))
    found = [row[key] for row in rows]
    if found[0] == found[1]:
        raise Unsuitable("alike")
    best = ids[found.index(max(found) if word == "higher" else min(found))]
    s.d.because("which", **versus(list(map(shown, ids)), found, ids.index(best), word))
    s.serve(act, {act.slot("id"): best})
    return look, act


def before(s: Scene, thing: Thing) -> Sequence[Invented]:
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


def telling_former(s: Scene, thing: Thing, attribute: str = "") -> tuple[Invented, str, str]:
    """A tool that sets an attribute and tells what it was before; the field that has that, and its kind."""
    put = s.shop.make("set", thing, attribute)
    # mostly the new value stands beside: as the only value of a result the former one need not be known
    was, (name, kind) = s.r.choice(_FORMER), put.params["value"]
    # 0 can be what was before too
    told = f"?{kind}" if kind in ("count", "measure", "money") and s.r.random() < _NIL else kind
    fields = {**put.result, was: told, **({name: f"@{name}"} if s.r.random() < _BOTH else {})}
    put = replace(put, result=dict(s.r.sample(list(fields.items()), len(fields))))
    put.schema["function"]["description"] += f" Returns the {spoken(put.attribute)} it had before."
    s.shop.tools[put.name] = put
    return put, was, kind


def previous(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What is overwritten is told by the call that does it, and nothing on offer reads it before.

    It goes to another of the things, or to another attribute of the same kind.
    """
    put, was, kind = telling_former(s, thing)
    elsewhere = [(two, key) for two in things() for key in two.attributes if kind_of(key) == kind and two is not thing]
    last = s.shop.make("set", *s.r.choice(elsewhere)) if elsewhere and s.r.random() < _ELSEWHERE else put
    tools = (put,) if last is put else (put, last)
    s.ready(*tools)
    (one, other), (there,) = s.ids(put, "id", 2), s.ids(last, "id", 1)
    new = s.draw(put, "value")
    words = {"id": s.slot(put, "id"), "other": "{_other}", "value": s.slot(put, "value")}
    if last is not put:
        other, words = there, {**words, "attr2": spoken(last.attribute), "obj2": last.thing.one}
    source = s.line("say", "previous" if last is put else "previous_elsewhere", put, **words)
    s.d.user(s.filled(source, {put.slot("id"): one, "_other": other, put.slot("value"): new}))
    (found,) = s.call((put, ordered(put, {put.slot("id"): one, put.slot("value"): said(new).value})))
    if found[was] == said(new).value:
        raise Unsuitable("it had that already")
    s.d.because("before", value=found[was], other=other)
    s.serve(last, ordered(last, {last.slot("id"): other, last.slot("value"): found[was]}))
    return tools


def noted(s: Scene, thing: Thing) -> Sequence[Invented]:
    """A value that is looked up goes into words that the user gave."""
    look, key, noun = figure(s, thing)
    act = s.shop.make("act", thing)
    if "reason" not in act.params:
        raise Unsuitable("takes no reason")
    s.ready(look, act)
    (one,) = s.ids(look, "id", 1)
    text = s.r.choice(_NOTES).format(attr=spoken(look.attribute))
    words = {"act": act.action, "done": thing.actions[act.action], **words_for(look, key, noun)}
    source = s.line("say", "noted", look, id=s.slot(look, "id"), reason="{_reason}", **words)
    s.d.user(s.filled(source, {look.slot("id"): one, "_reason": f'"{text}"'}))
    (found,) = s.call((look, {look.slot("id"): one}))
    reason = text.replace("N", shown(found[key]))
    s.d.because("within", noun=f"the {noun}", value=found[key], whole=reason)
    s.serve(act, ordered(act, {act.slot("id"): one, act.slot("reason"): reason}))
    return look, act


def _empty(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What happens depends on whether a search finds anything."""
    find = s.shop.make("find", thing)
    find = _or_none(find, "ids")
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
    look, key, noun = figure(s, thing)
    look = _or_none(look, key)
    s.shop.tools[look.name] = look
    acts = [s.shop.make("act", thing, action=action) for action in s.r.sample(tuple(thing.actions), 2)]
    s.ready(look, *acts)
    (one,) = s.ids(look, "id", 1)
    words = {"act": acts[0].action, "act2": acts[1].action}
    done = {"done": thing.actions[words["act"]], "done2": thing.actions[words["act2"]]}
    words.update(words_for(look, key, noun))
    source = s.line("say", "none", look, id=s.slot(look, "id"), **words, **done)
    s.d.user(s.filled(source, {look.slot("id"): one}))
    (found,) = s.call((look, {look.slot("id"): one}))
    number = found[key]
    act = acts[1] if number else acts[0]
    s.d.because("zero", holds=not number, noun=f"the {noun}", value=number, then=f"{act.action} {one}")
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


def closest_with(s: Scene, thing: Thing) -> Sequence[Invented]:
    """What a comparison finds is added up with a thing that was said."""
    fit = [key for key in thing.attributes if kind_of(key) in ("measure", "money")]
    if not fit:
        raise Unsuitable("nothing to add up")
    match, total = s.shop.make("match", thing), s.shop.make("total", thing, s.r.choice(fit))
    s.ready(match, total)
    one, other, *rest = s.ids(match, "id", s.r.choice((4, 5, 5)))
    words = {"attr2": spoken(total.attribute), "other": "{_other}"}
    source = s.line("say", "closest_with", match, id=s.slot(match, "id"), ids=s.slot(match, "ids"), **words)
    s.d.user(s.filled(source, {match.slot("id"): one, match.slot("ids"): rest, "_other": other}))
    (found,) = s.call((match, ordered(match, {match.slot("id"): one, match.slot("ids"): rest})))
    s.d.because("closest", item=shown(found["closest"]))
    s.serve(total, ordered(total, {total.slot("ids"): [found["closest"], other]}))
    return match, total


def either(s: Scene, thing: Thing) -> Sequence[Invented]:
    """One action or value for one of two things, or one of two values for a thing: a result only decides which."""
    r = s.r
    way = r.choice(("above", "below", "none", "empty"))
    look, key, noun = (s.shop.make("find", thing), "ids", "") if way == "empty" else figure(s, thing)
    more = {} if way == "empty" else words_for(look, key, noun)
    if way in ("none", "empty"):
        look = _or_none(look, key)
        s.shop.tools[look.name] = look
    over = r.choice((thing, s.shop.thing()))
    last, whose = s.shop.make(r.choice(("act", "act", "set", "set")), over), r.random() < 0.5
    if last.serves(look) or last.attribute == look.attribute:
        raise Unsuitable("about the same")
    s.ready(look, last)
    role = "value" if way == "empty" else "id"
    passed = s.draw(look, role)
    arguments = {look.slot(role): said(passed).value}
    bar = 0 if way in ("none", "empty") else _bar(s, look, arguments, key)[1]
    one, other = s.ids(last, "id", 2)
    act = last.operation == "act"
    key2 = "either_act" if act else "either_whose" if whose else "either_set"
    given = None if act else s.draw(last, "value")
    first, second = (given, s.draw(last, "value")) if key2 == "either_set" else (one, other)
    if said(first).value == said(second).value or said(passed).value in (one, other):
        raise Unsuitable("the same twice")
    # asked for in both ways: where all asked for none, the model took the second whatever there was
    some = way in _SOME and r.random() < 0.5
    test = s.line(
        "say", f"test_{_SOME[way] if some else way}", look, **{role: s.slot(look, role)}, bar="{_bar}", **more
    )
    words = {
        "obj": over.one,
        "Obj": last.words()["Obj"],
        "act": last.action,
        "attr": spoken(last.attribute),
        "id": "{_id}",
        "v": "{_v}",
    }
    source = r.choice(tables()["say"][key2]).format(test=test, x="{_x}", y="{_y}", **words)
    slots = {look.slot(role): passed, "_bar": bar, "_id": one, "_v": given, "_x": first, "_y": second}
    s.d.user(s.filled(source, {name: item for name, item in slots.items() if f"{{{name}}}" in source}))
    (result,) = s.call((look, arguments))
    value = result[key]
    holds = (value > bar) == (way == "above") if way in ("above", "below") else not value
    taken = first if holds != some else second
    value_then, id_then = (taken, one) if key2 == "either_set" else (given, taken)
    then = f"{last.action} {taken}" if act else f"{shown(said(value_then).text)} for {id_then}"
    if way in ("above", "below"):
        _against(s, noun, value, bar, way, holds, then)
    elif way == "none":
        s.d.because("zero", holds=holds, noun=f"the {noun}", value=value, then=then)
    else:
        s.d.because("empty", holds=holds, found=shown(value), then=then)
    more = {} if act else {last.slot("value"): said(value_then).value}
    s.serve(last, ordered(last, {last.slot("id"): id_then, **more}))
    return look, last


def _or_none(tool: Invented, field: str) -> Invented:
    """The tool, where what it tells may be 0 or an empty list."""
    return replace(tool, result={key: f"?{kind}" if key == field else kind for key, kind in tool.result.items()})


def _bar(s: Scene, look: Invented, arguments: dict[str, Any], key: str) -> tuple[Any, int]:
    """What the world holds, and a bar near it or with another number of digits, so that both ways are taken."""
    found = s.d.peek(look.name, arguments)[key]
    bar = max(1, round(found * s.r.choice((0.05, 0.3, 0.6, 0.8, 1.2, 1.5, 4, 20))))
    if bar == found:
        raise Unsuitable("just at the bar")
    return found, bar


def _against(s: Scene, noun: str, found: Any, bar: int, side: str, holds: bool, then: str) -> None:
    noun, test = f"the {noun}", f"is {side} {bar}"
    s.d.because("bound", holds=holds, noun=noun, value=found, bound=bar, test=test, denied=denied(test), then=then)


_FORMER = ("previous", "old", "was", "former", "replaced", "until_now")
_SOME = {"none": "some", "empty": "found"}  # the opposite of a test
_BOTH, _ELSEWHERE, _NIL = 0.8, 0.4, 0.4
_NOTES = (
    *("{attr} N", "{attr}: N", "N now", "N too many"),
    *("it was at N", "N by the record", "only N left", "N, checked twice"),
)
_DECIDING: tuple[Pattern, ...] = (
    *(above, below, higher, before, previous, previous, previous, previous, noted),
    *(_empty, _none, _closer, closest_with, closest_with),
    *(either, either, either, either, either, either),
)
