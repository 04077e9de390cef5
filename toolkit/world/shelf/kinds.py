"""How a chat with the shelf's tools goes: the counterpart of `toolkit.world.kinds`, for tools of fields/*.toml."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.framing import framing
from toolkit.world.language import Filled, compose, parse, said, spoken
from toolkit.world.shelf.chains import multi_step
from toolkit.world.shelf.display import Display, Shown
from toolkit.world.shelf.entry import Entry, fields, serves, shelf
from toolkit.world.shelf.values import family
from toolkit.world.spec import Unsuitable

Flags = dict[str, Any]

_TOLD = 0.1  # of single requests, what they leave out stands in the system turn
_NAMED = 0.3  # of those, where they do say it, and otherwise
_TEMPTING = 0.65  # of what is missing or left out, where something said could be mistaken for it


@cache
def _lacking() -> tuple[tuple[tuple[Entry, str, str], ...], tuple[tuple[Entry, str, str], ...]]:
    """(tool, missing argument, request) for all, and for those where the request says something of the same kind."""
    every = [
        (entry, missing, line) for entry in shelf().values() for missing, ask in entry.ask.items() for line in ask.lines
    ]
    return tuple(every), tuple(one for one in every if one[0].alike(one[1], one[2]))


@cache
def _sparing() -> tuple[tuple[Entry, str], ...]:
    """(tool, request) where an optional argument stays out that is of the kind of one said."""
    found = []
    for entry in shelf().values():
        for line in entry.say:
            has = parse(line).arguments
            kinds = {family(entry.params[name].kind) for name in parse(line).slots}
            if any(name not in has and family(param.kind) in kinds for name, param in entry.params.items()):
                found.append((entry, line))
    return tuple(found)


@cache
def _many() -> tuple[Entry, ...]:
    return tuple(entry for entry in shelf().values() if entry.several)


def _any(d: Draft) -> Entry:
    return d.r.choice(tuple(shelf().values()))


def single(d: Draft) -> Flags:
    """One request and its call; some say an argument in a sentence of its own, some ask again."""
    show = Display(d)
    which = d.r.random()
    if which < 0.15:
        return _completed(show)
    if which < 0.15 + _TOLD:
        return _told(show)
    if d.r.random() < 0.2:
        entry, line = d.r.choice(_sparing())
    else:
        entry = _any(d)
        line = show.line(entry)
    tool = _ask_and_serve(show, entry, line)
    if d.r.random() < 0.25:
        _ask_and_serve(show, entry, show.line(entry), tool)
    return {"offer": show.offer(entry), "shelf": True}


def _ask_and_serve(show: Display, entry: Entry, line: str, tool: Shown | None = None) -> Shown:
    slots = show.slots(entry, parse(line).slots)
    request = show.fill(line, slots)
    show.d.user(request)
    if tool is None:
        tool = _ready(show, entry, request)
    elif not request.arguments.keys() <= tool.names.keys():
        raise Unsuitable("the chat's tool lacks the argument")
    show.serve((tool, request.arguments, slots))
    return tool


def _ready(show: Display, entry: Entry, *requests: Filled) -> Shown:
    tool = show.show(entry, [key for request in requests for key in request.arguments])
    show.d.needed.append(tool.name)
    return tool


def _completed(show: Display) -> Flags:
    """The words of a request that leaves an argument out, with the argument in a sentence of its own: no question."""
    entry, missing, line = _missing(show.d)
    slots = show.slots(entry, (*parse(line).slots, missing))
    value = said(slots[missing])
    if isinstance(value.value, (bool, list)):
        raise Unsuitable(missing)
    request = show.fill(line, slots)
    show.d.user(show.d.with_sentence(request, "detail", spoken(missing), slots[missing]))
    arguments = {**request.arguments, missing: value.value}
    tool = show.show(entry, list(arguments))
    show.d.needed.append(tool.name)
    show.serve((tool, arguments, slots))
    return {"offer": show.offer(entry), "shelf": True, "completed": tool.names[missing]}


def _told(show: Display) -> Flags:
    """The system turn says what a request leaves out; where the request says it all the same, that counts."""
    d = show.d
    entry, missing, line = _missing(d)
    named = d.r.random() < _NAMED
    if named:
        line = show.line(entry)
    slots = show.slots(entry, (*parse(line).slots, missing))
    request = show.fill(line, slots)
    usual = show.slots(entry, (missing,))[missing] if named else slots[missing]
    if missing in request.arguments and said(usual).value == request.arguments[missing]:
        raise Unsuitable("the default is what is said")
    _default(d, entry, missing, usual)
    d.user(request)
    arguments = {missing: said(usual).value, **request.arguments}
    tool = show.show(entry, list(arguments))
    d.needed.append(tool.name)
    show.serve((tool, arguments, slots))
    flags = {} if named else {"told": tool.names[missing]}
    return {"offer": show.offer(entry), "shelf": True, **flags}


def _default(d: Draft, entry: Entry, name: str, usual: Any) -> None:
    """Let the system turn say what an argument is where a user does not."""
    item = said(usual)
    if isinstance(item.value, (bool, list)) or item.dated:
        raise Unsuitable(name)
    words = {"name": spoken(name), "x": item.text, "does": entry.does}
    d.told = compose(framing(d.r, "default"), words)


def _missing(d: Draft) -> tuple[Entry, str, str]:
    every, tempting = _lacking()
    return d.r.choice(tempting if d.r.random() < _TEMPTING else every)


def parallel(d: Draft) -> Flags:
    """One tool for several things, or two requests in one message, of two tools or of one."""
    show = Display(d)
    if d.r.random() < 0.5:
        entry = d.r.choice(_many())
        line = d.r.choice(entry.several)
        items = show.values(entry, entry.many, d.r.choice((2, 2, 2, 3, 3, 4)))
        slots = {**show.slots(entry, parse(line).slots), entry.many: items}
        request = show.fill(line, slots)
        d.user(request)
        tool = _ready(show, entry, request)
        show.serve(*((tool, {**request.arguments, entry.many: said(x).value}, {**slots, entry.many: x}) for x in items))
        return {"offer": show.offer(entry), "shelf": True}
    one = _any(d)
    other = one if d.r.random() < 0.2 else _any(d)
    entries = (one, other)
    lines = [show.line(entry, lambda line: parse(line).imperative) for entry in entries]
    drawn = [show.slots(entry, parse(line).slots) for entry, line in zip(entries, lines, strict=True)]
    requests = [show.fill(line, slots) for line, slots in zip(lines, drawn, strict=True)]
    if one is other:
        if requests[0].arguments == requests[1].arguments:
            raise Unsuitable("twice the same")
        tools = [_ready(show, one, *requests)] * 2
    else:
        if serves(one.name, other.name):
            raise Unsuitable("one tool might do for both")
        tools = [_ready(show, entry, request) for entry, request in zip(entries, requests, strict=True)]
    d.user(*requests)
    show.serve(*((tool, request.arguments, slots) for tool, request, slots in zip(tools, requests, drawn, strict=True)))
    return {"offer": show.offer(*entries), "shelf": True}


def clarify(d: Draft) -> Flags:
    """Something required is missing, often of a kind that the request does name: ask; half of the users answer."""
    show = Display(d)
    entry, missing, line = _missing(d)
    slots = show.slots(entry, (*parse(line).slots, missing))
    answer = slots.pop(missing)
    request = show.fill(line, slots)
    if d.r.random() < 0.1:
        request = d.with_sentence(request, "hint", spoken(missing))
    if slots and d.r.random() < 0.12:
        # a default for what the user does say does not help
        other = d.r.choice(tuple(slots))
        _default(d, entry, other, show.slots(entry, (other,))[other])
    d.user(request, neutral=True)
    d.say(d.r.choice(entry.ask[missing].questions))
    tool = _ready(show, entry, request)
    if d.r.random() < 0.5:
        d.reply(answer)
        arguments = {**request.arguments, missing: said(answer).value}
        show.serve((tool, arguments, {**slots, missing: answer}))
    return {"offer": show.offer(entry), "shelf": True, "missing": tool.names[missing]}


def irrelevance(d: Draft) -> Flags:
    """A request as `single` has it, without its tool: others of the field are on offer."""
    show = Display(d)
    wanted = _any(d)
    line = show.line(wanted)
    d.user(show.fill(line, show.slots(wanted, parse(line).slots)))
    siblings = [name for name in fields()[wanted.field].names if not serves(name, wanted.name)]
    near = d.r.sample(siblings, d.r.choice((0, 1, 1, 2)))
    for name in near:
        _ready(show, shelf()[name])
    d.decline(wanted.does, [shelf()[name].does for name in near])
    return {"offer": show.offer(wanted), "shelf": True}


SHELF: dict[str, Callable[[Draft], Flags]] = {
    "single": single,
    "parallel": parallel,
    "multi_step": multi_step,
    "clarify": clarify,
    "irrelevance": irrelevance,
}
