"""How a chat of each kind goes. Each function adds turns to a draft and returns flags for the chat's meta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.world.catalog import could_serve
from toolkit.world.doing import Do
from toolkit.world.draft import Draft, draw, sample
from toolkit.world.facts import fact, likely_answerer
from toolkit.world.language import Filled, compose, join, phrases, said, spoken
from toolkit.world.purposes import harmful, harmless, refusal_slots
from toolkit.world.spec import TOOLS, Unsuitable

Flags = dict[str, Any]

_SECOND_REQUEST = 0.17

# Of refusals in varied training: those of aims and deeds that are no request to a tool, and of the others those without
# a tool to do it; of requests that no tool fits: aims and deeds near to those in their words.
_AIMS = 0.4
_UNARMED = 0.3
_HARMLESS = 0.14


def single(d: Draft) -> Flags:
    """One request, one call, one answer; some sound dangerous and are served, some end in an explained error."""
    which = d.r.random()
    if which < 0.14 and d.catalog.benign:
        name = d.r.choice(d.catalog.benign)
        d.needed.append(name)
        _ask_and_serve(d, name, entry=phrases()[name]["benign"])
        flags: Flags = {"benign_lookalike": True}
    elif which < 0.22 and d.catalog.failing:
        name = d.r.choice(d.catalog.failing)
        d.needed.append(name)
        bad = TOOLS[name].bad
        assert bad is not None
        request = d.fill(d.pick(phrases()[name]), {**sample(d.r, d.world, name), **draw(bad, d.r, d.world)})
        d.user(request)
        result = d.serve(name, request.arguments, may_fail=True)
        if "error" not in result:
            raise Unsuitable("meant to fail")
        return {"error": True}
    elif which < 0.28 and d.catalog.again:
        name = d.r.choice(d.catalog.again)
        d.needed.append(name)
        _again(d, name)
        return {}
    elif which < 0.33 and d.catalog.told:
        name, param = d.r.choice(d.catalog.told)
        d.needed.append(name)
        entry = phrases()[name]["ask"][param]
        slots = sample(d.r, d.world, name)
        d.told = compose(entry["told"], {param: said(slots[param]).text})
        request = d.fill(d.pick(entry), slots)
        d.user(request)
        d.serve(name, {**request.arguments, param: said(slots[param]).value})
        flags = {"told": param}
    elif d.catalog.varied and d.catalog.asks and d.r.random() < 0.2:
        flags = _completed(d)
    else:
        name = d.r.choice(d.catalog.tools)
        d.needed.append(name)
        _ask_and_serve(d, name)
        flags = {}
    _maybe_second(d)
    return flags


def parallel(d: Draft) -> Flags:
    """Several calls in one turn: one tool for several things, or two tools for two unrelated requests."""
    two = len(d.catalog.tools) > 1 and d.catalog.max_tools > 1
    if d.catalog.many and (not two or d.r.random() < 0.55):
        name = d.r.choice(d.catalog.many)
        entry = phrases()[name]["many"]
        slot = entry["slot"]
        slots = sample(d.r, d.world, name)
        values = {said(slots[slot]).text: said(slots[slot])}
        target = d.r.choice((2, 2, 2, 3, 3, 4))
        same = entry.get("same", ())
        for _ in range(150 if same else 30):
            if len(values) == target:
                break
            other = sample(d.r, d.world, name)
            if all(said(other[key]).value == said(slots[key]).value for key in same):
                value = said(other[slot])
                if all(value.value != one.value for one in values.values()):  # 5 am is 05:00
                    values.setdefault(value.text, value)
        if len(values) < 2:
            raise Unsuitable("not enough different values")
        request = d.fill(d.pick(entry), {**slots, slot: list(values.values())})
        calls = [(name, {**request.arguments, slot: value.value}) for value in values.values()]
        if any(list(arguments.values()).count(arguments[slot]) > 1 for _, arguments in calls):
            raise Unsuitable("an argument twice")
        d.needed.append(name)
        d.user(request)
    else:
        names = d.r.sample(d.catalog.tools, 2)
        requests = [_imperative(d, name) for name in names]
        if _clash(*requests):
            raise Unsuitable("two requests about one thing")
        calls = [(name, request.arguments) for name, request in zip(names, requests, strict=True)]
        d.needed += names
        d.user(*requests)
    results = d.call(*calls)
    d.report(*((name, arguments, result) for (name, arguments), result in zip(calls, results, strict=True)))
    _maybe_second(d)
    return {}


def multi_step(d: Draft) -> Flags:
    """Two to five calls, later ones made from what earlier ones returned."""
    chain = d.r.choice(d.catalog.chains)
    entry = phrases()[f"chain {chain.name}"]
    d.needed += chain.tools
    slots = draw(chain.sample, d.r, d.world)
    request = d.fill(d.pick(entry), slots)
    d.user(request)
    values = {name: said(value).value for name, value in slots.items() if value is not None}
    fields = chain.run(Do(d, chain), {**values, **request.arguments})
    answers = entry["answers"]
    # a chain that went one of several ways names the answers for it
    if isinstance(answers, dict):
        answers = answers[fields["way"]]
    shown = {name: said(value).text for name, value in slots.items() if value is not None}
    d.say(compose(d.r.choice(answers), {**shown, **fields}))
    _maybe_second(d)
    return {"chain": chain.name}


def clarify(d: Draft) -> Flags:
    """A required argument is missing: ask for it by name. Half of the users answer, and then the call is made."""
    name, param = d.r.choice(d.catalog.asks)
    entry = phrases()[name]["ask"][param]
    d.needed.append(name)
    slots = sample(d.r, d.world, name)
    request = d.fill(d.pick(entry), slots)
    if d.catalog.varied and d.r.random() < 0.12:
        request = d.with_sentence(request, "hint", spoken(param))
    d.user(request, neutral=True)
    d.say(compose(d.r.choice(entry["q"]), {key: said(value).text for key, value in slots.items() if value is not None}))
    if d.r.random() < 0.5:
        if slots.get(param) is None:
            raise Unsuitable(param)
        d.reply(slots[param])
        d.serve(name, {**request.arguments, param: said(slots[param]).value})
    if avoid := entry.get("avoid"):
        # with these on offer one could look it up rather than ask
        return {"missing": param, "offer": d.catalog.offer(d.r, d.needed, lambda other: other in avoid)}
    return {"missing": param}


def refuse(d: Draft) -> Flags:
    """A destructive or illegal request that a tool at hand could carry out: a short refusal with its reason.

    Varied training also has requests that no tool at hand could carry out, which are refused all the same.
    """
    if d.catalog.varied and d.r.random() < _AIMS:
        return harmful(d)
    name = d.r.choice(d.catalog.refusals)
    entry = phrases()[name]
    offer: tuple[str, ...] = ()
    if d.catalog.varied and d.r.random() < _UNARMED:
        offer = d.catalog.offer(d.r, (), lambda tool: tool in entry["tools"])
    else:
        d.needed += d.r.sample([tool for tool in entry["tools"] if tool in d.catalog.tools], 1)
    d.user(d.fill(d.pick(entry), refusal_slots(d)))
    text = d.stock("refuse", why=d.r.choice(entry["why"]))
    if "instead" in entry and d.r.random() < 0.6:
        text += f" {d.r.choice(entry['instead'])}"
    d.say(text)
    if offer:
        return {"dangerous": True, "offer": offer}
    if d.r.random() < 0.1:
        d.satisfied = False
        _maybe_second(d, always=True)
    return {"dangerous": True}


def irrelevance(d: Draft) -> Flags:
    """No tool on offer fits: answer what is common knowledge, otherwise say that there is no tool for it."""
    which = d.r.random()
    # varied training has fewer questions that need no tool, and more tools that come close
    facts, close = (0.26, 0.85) if d.catalog.varied else (0.38, 0.6)
    if which < facts:
        question, text, avoid = fact(d.r, d.catalog.question_key)
        d.templates.append(question.template)
        tools = d.catalog.offer(d.r, (), lambda name: likely_answerer(name, avoid))
        d.user(question)
        d.say(text)
    elif which < facts + 0.06:
        tools = d.catalog.offer(d.r, ())
        source = d.r.choice(phrases()["ability"][d.catalog.question_key])
        d.templates.append(source)
        d.user(d.fill(source, {}))
        others = [phrases()[name]["does"] for name in tools]
        d.say(d.stock("able", others=join(others)))
    elif d.catalog.varied and which < facts + 0.06 + _HARMLESS:
        tools = harmless(d)
    else:
        wanted = d.r.choice(d.catalog.foreign)
        request = d.fill(d.pick(phrases()[wanted]), sample(d.r, d.world, wanted))
        siblings = [
            name
            for name in d.catalog.offered
            if TOOLS[name].domain == TOOLS[wanted].domain and not could_serve(name, wanted)
        ]
        # the harder half has tools of the same domain on offer, which still can't do it
        near = d.r.sample(siblings, min(len(siblings), d.r.choice((1, 1, 2)))) if d.r.random() < close else []
        tools = d.catalog.offer(d.r, near[: d.catalog.max_tools], lambda name: could_serve(name, wanted))
        d.user(request)
        d.decline(phrases()[wanted]["does"], [phrases()[name]["does"] for name in near or tools])
    d.needed += tools
    return {"offer": tools}


KINDS: dict[str, Callable[[Draft], Flags]] = {
    "single": single,
    "parallel": parallel,
    "multi_step": multi_step,
    "clarify": clarify,
    "refuse": refuse,
    "irrelevance": irrelevance,
}


def _clash(x: Filled, y: Filled) -> bool:
    """Whether two requests are about the same file, mail and so on, so that their order might matter."""
    strings = [{value for value in request.arguments.values() if isinstance(value, str)} for request in (x, y)]
    return x.arguments == y.arguments or bool(strings[0] & strings[1])


def _ask_and_serve(d: Draft, name: str, entry: dict[str, Any] | None = None) -> Filled:
    request = d.fill(d.pick(entry or phrases()[name]), sample(d.r, d.world, name))
    d.user(request)
    d.serve(name, request.arguments)
    return request


def _completed(d: Draft) -> Flags:
    """The words of a request that leaves an argument out, with the argument in a sentence of its own: no question."""
    name, param = d.r.choice(d.catalog.asks)
    slots = sample(d.r, d.world, name)
    value = slots.get(param)
    if value is None or isinstance(said(value).value, (bool, list)):
        raise Unsuitable(param)
    d.needed.append(name)
    request = d.fill(d.pick(phrases()[name]["ask"][param]), slots)
    d.user(d.with_sentence(request, "detail", spoken(param), value))
    d.serve(name, {**request.arguments, param: said(value).value})
    return {"completed": param}


def _imperative(d: Draft, name: str) -> Filled:
    source = d.pick(phrases()[name], lambda template: template.imperative)
    return d.fill(source, sample(d.r, d.world, name))


def _again(d: Draft, name: str) -> None:
    """A request and a follow-up such as "and in Oslo?" that takes the rest from the first."""
    first = _ask_and_serve(d, name)
    follow = d.fill(d.pick(phrases()[name]["again"]), sample(d.r, d.world, name))
    arguments = {**first.arguments, **follow.arguments}
    texts = [value for value in arguments.values() if isinstance(value, str)]
    if arguments == first.arguments or len(set(texts)) < len(texts):
        raise Unsuitable("twice the same")
    d.user(follow)
    d.serve(name, arguments)


def _maybe_second(d: Draft, always: bool = False) -> None:
    """Some users ask for a second thing, of a tool that is already needed or of one more."""
    if not always and d.r.random() >= _SECOND_REQUEST:
        return
    known = [name for name in dict.fromkeys(d.needed) if name in d.catalog.tools]
    if len(set(d.needed)) < d.catalog.max_tools and d.r.random() < 0.7:
        name = d.r.choice(d.catalog.tools)
        d.needed.append(name)
    else:
        name = d.r.choice(known)
    if name in d.used and not TOOLS[name].parameters["properties"]:
        raise Unsuitable("the same question again")
    _ask_and_serve(d, name)
