"""Chains in which a result decides: a number against a bound, or one thing's number against another's; or is put
into a text.

What is decided is which of two requests is served, or which of two things one is made about. None of it is written
down: any tool with a number, time or date among its results can come first, and any request second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any

from toolkit.world.language import Filled, Said, compose, neat, parse, said, shown
from toolkit.world.rationale import denied, versus
from toolkit.world.shelf.alternatives import (
    Request,
    alternatives,
    entries,
    ready,
    serve_one,
    swapped,
    words_of,
)
from toolkit.world.shelf.display import Display, Shown, framed
from toolkit.world.shelf.entry import Entry, Param, Result, serves, shelf
from toolkit.world.spec import Unsuitable

_NUMBERS = ("int", "num", "money", "=")
_THINGS = ("one", "any", "quoted", "person", "city", "code")  # kinds that a request can speak of as "the one with"
_FAR = 0.35  # of bounds have mostly more or fewer digits than what is held against them
_REMARK = 0.25  # of looks are a question or a remark, such as one has on one's mind before a request
_ABOUT_IT = 0.5  # of comparisons where it can be, the second request is about what was found


@dataclass(frozen=True, slots=True)
class _Pair:
    """One request for two things, and which of the two results is the `word` one ("higher")."""

    first: Entry
    result: Result
    look: Request
    tool: Shown
    calls: list[tuple[str, dict[str, Any]]]
    values: list[Any]
    best: int
    word: str

    @property
    def fields(self) -> dict[str, Any]:
        """What a rationale says of the two."""
        return versus([said(item).text for item in self.look.slots[self.first.many]], self.values, self.best, self.word)


@cache
def measured() -> tuple[tuple[Entry, Result], ...]:
    """Tools with a result that is more or less, earlier or later, and that has a noun."""
    return tuple(
        (entry, result)
        for entry in shelf().values()
        for result in entry.result
        if result.noun and result.kind.split()[0] in (*_NUMBERS, "time", "date")
    )


@cache
def compared() -> tuple[tuple[Entry, Result], ...]:
    """Those of them that take several values of one parameter in one request."""
    return tuple((entry, result) for entry, result in measured() if any(parse(x).imperative for x in entry.several))


@cache
def about(kind: str) -> tuple[tuple[Entry, Param], ...]:
    """Tools with a required parameter of just this kind, which a request can name; none for numbers and days."""
    if kind.split()[0] not in _THINGS:
        return ()
    return tuple(
        (entry, param)
        for entry in shelf().values()
        for param in entry.params.values()
        if param.required and param.kind == kind and any(_slot(param).search(x) for x in entry.say)
    )


def decided(
    show: Display, frames: Mapping[str, Sequence[str]], remarks: Mapping[str, Sequence[str]]
) -> tuple[list[Entry], str]:
    """A look at one number, which may be asked for outright, and one of two requests by it."""
    r = show.r
    first, result = r.choice(measured())
    remark = r.random() < _REMARK
    look = ready(show, first, remark=remark)
    tool = show.show(first, list(look.filled.arguments))
    value = _result(show, tool, look.filled.arguments)[result.name]
    bound = _near(show, value)
    more = r.random() < 0.5
    words = r.choice(
        frames["later" if more else "earlier"] if _is_day_or_time(value) else frames["more" if more else "less"]
    )
    test = words.replace("{n}", bound.text)
    one, other = alternatives(show, first)
    options = (remarks if remark else frames)["instead" if other.instead else "say"]
    short = re.sub(r"^(is|comes) ", "", test)
    words_for = {"test": test, "short": short, "Short": short[:1].upper() + short[1:]}
    _say(show, r.choice(options), result, look, one, other, **words_for)
    show.d.needed.append(tool.name)
    show.d.call(tool.call(look.filled.arguments))
    holds = (value > bound.value) == more
    taken = one if holds else other
    fields = {"noun": result.noun, "value": value, "bound": bound.text, "test": test, "denied": denied(test)}
    show.d.because("bound", holds=holds, **fields, then=words_of(taken))
    serve_one(show, taken, {one.entry.name: one, other.entry.name: other})
    return entries(first, one, other), "decided"


def outweighed(show: Display, frames: Mapping[str, Sequence[str]]) -> tuple[list[Entry], str]:
    """Two calls at once, and a request about what has more, or one of two requests by which has more."""
    r = show.r
    pair = _pair(show, frames)
    first, result, look, tool, word = pair.first, pair.result, pair.look, pair.tool, pair.word
    item = look.slots[first.many][pair.best]
    choices = [one for one in about(first.params[first.many].kind) if not serves(one[0].name, first.name)]
    show.d.needed.append(tool.name)
    if choices and r.random() < _ABOUT_IT:
        entry, param = r.choice(choices)
        line = show.line(entry, lambda line: parse(line).imperative and bool(_slot(param).search(line)))
        named = _slot(param).sub(f"the one with the {word} {_bare(result.noun)}", line)
        slots = show.slots(entry, parse(named).slots)
        if any(said(other).value == said(item).value for other in slots.values()):
            raise Unsuitable("said already")
        filled = show.fill(named, slots)
        request = Request(entry, filled, slots)
        _say(show, r.choice(frames["about"]), result, look, request, request, word=word)
        show.d.call(*pair.calls)
        second = show.show(entry, [*filled.arguments, param.name])
        show.d.needed.append(second.name)
        arguments = {**filled.arguments, param.name: said(item).value}
        show.d.because("which", **pair.fields)
        show.serve((second, arguments, {**slots, param.name: item}))
        return [first, entry], "about the one"
    one, other = alternatives(show, first)
    said_first = said(look.slots[first.many][0]).text
    frame = r.choice(frames["compare_instead" if other.instead else "compare"])
    _say(show, frame, result, look, one, other, word=word, item=said_first)
    show.d.call(*pair.calls)
    taken = one if pair.best == 0 else other
    show.d.because("whether", holds=pair.best == 0, **pair.fields, asked=said_first, then=words_of(taken))
    serve_one(show, taken, {one.entry.name: one, other.entry.name: other})
    return entries(first, one, other), "outweighed"


def asked(show: Display, frames: Mapping[str, Sequence[str]]) -> tuple[list[Entry], str]:
    """Two calls at once, and the question which has more: answered, with no call after it."""
    pair = _pair(show, frames)
    show.d.needed.append(pair.tool.name)
    _say(show, show.r.choice(frames["ask"]), pair.result, pair.look, pair.look, pair.look, word=pair.word)
    show.d.call(*pair.calls)
    item = said(pair.look.slots[pair.first.many][pair.best]).text.strip('"')
    answer = compose(show.r.choice(frames["answer"]), {**pair.fields, "item": item, "bare": _bare(pair.result.noun)})
    show.d.say(answer)
    return [pair.first], "asked"


def _pair(show: Display, frames: Mapping[str, Sequence[str]]) -> _Pair:
    r = show.r
    first, result = r.choice(compared())
    look = ready(show, first, several=True)
    options = [{**look.filled.arguments, first.many: said(item).value} for item in look.slots[first.many]]
    tool = show.show(first, list(options[0]))
    values = [_result(show, tool, option)[result.name] for option in options]
    if values[0] == values[1] or len(options) != 2:
        raise Unsuitable("nothing to choose by")
    more = r.random() < 0.5
    best = 0 if (values[0] > values[1]) == more else 1
    kind = "day" if _is_day_or_time(values[0]) else "number"
    word = r.choice(frames[f"{kind}_{'more' if more else 'less'}"])
    return _Pair(first, result, look, tool, [tool.call(option) for option in options], values, best, word)


@cache
def told() -> tuple[tuple[Entry, Result], ...]:
    """Tools with a result that fits into a text, and that has a noun."""
    kinds = (*_NUMBERS, "time", "any", "pick", "code", "made", "by")
    return tuple(
        (entry, result)
        for entry in shelf().values()
        for result in entry.result
        if result.noun and result.kind.split()[0] in kinds
    )


def together(show: Display, frames: Mapping[str, Sequence[str]], remarks: Sequence[str]) -> tuple[list[Entry], str]:
    """A look at something, and a request whose text is some words with that behind them."""
    r = show.r
    first, result = r.choice(told())
    entry, param = r.choice(_texts())
    if serves(entry.name, first.name):
        raise Unsuitable("one tool might do for both")
    remark = r.random() < _REMARK
    look = ready(show, first, remark=remark)
    tool = show.show(first, list(look.filled.arguments))
    value = shown(_result(show, tool, look.filled.arguments)[result.name])
    way = r.choice(("apart", "close"))
    words = r.choice(frames["words"])
    mark = r.choice("-_/#:") if way == "close" else " "
    text = r.choice(frames[way]).replace('"{words}"', "{_words}").replace("{noun}", result.noun)
    line = show.line(entry, lambda line: parse(line).imperative and bool(_slot(param).search(line)))
    named = _slot(param).sub(text, line)
    slots = show.slots(entry, [name for name in parse(named).slots if name != "_words"])
    started = f"{words}{mark}".strip()
    filled = show.fill(named, {**slots, "_words": Said(started, f'"{started}"')})
    request = Request(entry, filled, slots)
    if value in "".join(piece.text for piece in (*look.filled.pieces, *filled.pieces)):
        raise Unsuitable("said already")
    show.d.needed.append(tool.name)
    _say(show, r.choice(remarks if remark else frames["say"]), result, look, request, request)
    show.d.call(tool.call(look.filled.arguments))
    second = show.show(entry, [*filled.arguments, param.name])
    show.d.needed.append(second.name)
    whole = f"{words}{mark}{value}"
    show.d.because("within", noun=result.noun, value=value, whole=whole)
    show.serve((second, {**filled.arguments, param.name: whole}, {**slots, param.name: whole}))
    return [first, entry], "together"


@cache
def _texts() -> tuple[tuple[Entry, Param], ...]:
    """Tools that take any text."""
    names = ("text", "question", "phrase", "theme", "title")
    return tuple(
        (entry, entry.params[name])
        for entry in shelf().values()
        for name in names
        if name in entry.params
        and entry.params[name].kind.startswith("quoted")
        and any(parse(x).imperative and _slot(entry.params[name]).search(x) for x in entry.say)
    )


def looked_up(show: Display, first: Entry, *, remark: bool = False) -> tuple[Filled, Shown, dict[str, Any]]:
    """A request for the tool, or a remark that is one, the tool as it is shown, and what the call will return."""
    look = ready(show, first, remark=remark)
    tool = show.show(first, list(look.filled.arguments))
    return look.filled, tool, _result(show, tool, look.filled.arguments)


def _say(show: Display, frame: str, result: Result, look: Request, one: Request, other: Request, **words: str) -> None:
    """The user's turn: `a` the look, `b` and `c` the requests, and words in their places."""
    for name, text in {"noun": result.noun, "bare": _bare(result.noun), **words}.items():
        frame = frame.replace(f"{{{name}}}", text)
    show.d.user(framed(frame, a=look.filled, b=one.filled, c=other.filled, **swapped(other)))


def _result(show: Display, tool: Shown, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the call will return."""
    found = json.loads(show.d.world.call(*tool.call(arguments)))
    if not isinstance(found, dict) or "error" in found:
        raise Unsuitable("the call fails")
    return found


def _is_day_or_time(value: Any) -> bool:
    return isinstance(value, str)


def _near(show: Display, value: Any) -> Said:
    """A bound above or below the value, which is never it."""
    r = show.r
    sign = r.choice((-1, 1))
    if isinstance(value, str) and re.fullmatch(r"\d\d:\d\d", value):
        minutes = int(value[:2]) * 60 + int(value[3:]) + sign * 5 * r.randint(1, 24)
        if not 0 < minutes < 24 * 60:
            raise Unsuitable("another day")
        text = f"{minutes // 60:02}:{minutes % 60:02}"
        return Said(text, text)
    if isinstance(value, str):
        day = date.fromisoformat(value) + timedelta(days=sign * r.randint(1, 12))
        return Said(day.isoformat(), day.isoformat())
    if value > 0 and r.random() < _FAR:
        far = r.uniform(4, 40)
        bound: Any = neat(round(value * far if sign > 0 else value / far, 0 if isinstance(value, int) else 1))
    elif isinstance(value, int):
        bound = value + sign * r.randint(1, max(2, abs(value) // 3))
    else:
        bound = neat(round(value + sign * max(0.5, abs(value) * r.uniform(0.05, 0.4)), 1))
    if bound == value:
        raise Unsuitable("just that")
    return Said(bound, shown(bound))


def _slot(param: Param) -> re.Pattern[str]:
    return re.compile(rf"\{{{param.name}\}}")


def _bare(noun: str) -> str:
    return re.sub(r"^(the|its) ", "", noun)
