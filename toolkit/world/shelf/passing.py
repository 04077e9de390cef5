"""Chains in which a number or time that one tool tells is an argument of any other: "as the copies, take the number
waiting", or "the level it had so far".

The argument may be one that the second tool could do without: SmolLM2-135M left those out, a result for them or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from toolkit.world.language import Filled, parse, shown, spoken
from toolkit.world.shelf.alternatives import Request
from toolkit.world.shelf.decisions import looked_up, measured
from toolkit.world.shelf.display import Display, framed
from toolkit.world.shelf.entry import Entry, Param, Result, serves, shelf
from toolkit.world.spec import Unsuitable

_FAR = 3  # times the most that is asked for otherwise, a value can be


@cache
def takers() -> tuple[tuple[Entry, Param, tuple[str, ...]], ...]:
    """Tools with a number or time among their parameters, and requests that leave it out."""
    found = []
    for entry in shelf().values():
        for param in entry.params.values():
            if param.kind.split()[0] not in ("int", "num", "money", "time"):
                continue
            asked = entry.ask[param.name].lines if param.name in entry.ask else ()
            lines = asked if param.required else tuple(x for x in entry.say if not _names(x, param.name))
            if lines := tuple(line for line in lines if parse(line).imperative):
                found.append((entry, param, lines))
    return tuple(found)


@cache
def changed() -> tuple[tuple[Entry, Result, Param], ...]:
    """Tools that tell what something was set to before, with the parameter that sets it."""
    return tuple(
        (entry, result, next(param for param in entry.params.values() if param.kind == result.kind))
        for entry in shelf().values()
        for result in entry.result
        if result.name == "was"
    )


def passed_on(show: Display, frames: Mapping[str, Sequence[str]]) -> tuple[list[Entry], str]:
    """A look at one number or time, and a request that takes it."""
    first, result = show.r.choice(measured())
    look, tool, found = looked_up(show, first)
    request, param = taking(show, found[result.name], first)
    say(show, frames, look, request, param, result.noun, found[result.name])
    show.d.needed.append(tool.name)
    show.d.call(tool.call(look.arguments))
    serve(show, request, param, found[result.name])
    return [first, request.entry], "passed on"


def former(show: Display, frames: Mapping[str, Sequence[str]]) -> tuple[list[Entry], str]:
    """Something is set, and a request takes what it was before."""
    first, result, sets = show.r.choice(changed())
    look, tool, found = looked_up(show, first)
    request, param = taking(show, found[result.name], first)
    what = show.r.choice(frames["former"]).replace("{name}", spoken(sets.name))
    say(show, frames, look, request, param, what, found[result.name])
    show.d.needed.append(tool.name)
    show.d.call(tool.call(look.arguments))
    show.d.because("before", value=found[result.name], other=f"the {spoken(param.name)}")
    serve(show, request, param, found[result.name])
    return [first, request.entry], "former"


def taking(show: Display, value: Any, first: Entry | None = None) -> tuple[Request, Param]:
    """A request that lacks an argument which the value can be, with the parameter that it lacks.

    Raises Unsuitable where there is none.
    """
    fit = [
        (entry, param, lines)
        for entry, param, lines in takers()
        if _fits(param.kind, value) and (first is None or not serves(entry.name, first.name))
    ]
    if not fit:
        raise Unsuitable("nothing takes it")
    entry, param, lines = show.r.choice(fit)
    line = show.r.choice(lines)
    slots = show.slots(entry, parse(line).slots)
    return Request(entry, show.fill(line, slots), slots), param


def say(
    show: Display, frames: Mapping[str, Sequence[str]], look: Filled, request: Request, param: Param, what: str,
    value: Any,
) -> None:  # fmt: skip
    """The user's turn, in which `what` stands for the value. Raises Unsuitable where it is said outright."""
    frame = show.r.choice(frames["say"]).replace("{param}", f"the {spoken(param.name)}")
    frame = frame.replace("{what}", what).replace("{What}", what[:1].upper() + what[1:])
    asked = framed(frame, a=look, b=request.filled)
    if value in (*look.arguments.values(), *request.filled.arguments.values()) or re.search(
        rf"(?<![\d.]){re.escape(shown(value))}(?![\d.]?\d)", "".join(x.text for x in asked.pieces)
    ):
        raise Unsuitable("said already")
    show.d.user(asked)


def serve(show: Display, request: Request, param: Param, value: Any) -> None:
    """Make the request's call with the value, and answer."""
    arguments = {**request.filled.arguments, param.name: value}
    tool = show.show(request.entry, list(arguments))
    show.d.needed.append(tool.name)
    show.serve((tool, arguments, {**request.slots, param.name: value}))


def _names(line: str, param: str) -> bool:
    return param in parse(line).arguments


def _fits(kind: str, value: Any) -> bool:
    name, _, limits = kind.partition(" ")
    if isinstance(value, str):
        return name == "time" and re.fullmatch(r"\d\d:\d\d", value) is not None
    if name == "time" or (name == "int" and not isinstance(value, int)):
        return False
    return bool(0 <= value <= _FAR * float(limits.split()[1]))
