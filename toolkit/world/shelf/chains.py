"""Chains over the shelf's tools: a later call takes what an earlier one returned.

Some are written down (chains.toml), others put together: where a result has the tag that a parameter takes, the second
request says the result's noun in the value's place ("look up ... and then print the translation"). In others a result
decides (`toolkit.world.shelf.decisions`).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.language import Filled, fill, parse, said, shown
from toolkit.world.rationale import versus
from toolkit.world.shelf.decisions import asked, decided, outweighed, together
from toolkit.world.shelf.display import Display, Shown, framed
from toolkit.world.shelf.entry import Entry, Param, Result, lines, serves, shelf
from toolkit.world.shelf.passing import former, passed_on
from toolkit.world.spec import Unsuitable

Flags = dict[str, Any]

# shares of chains that are written down, where a result decides, is put into a text, or is a number for some other
# tool, as is what was before; the others are linked
_WRITTEN, _DECIDED, _OUTWEIGHED, _TOGETHER, _PASSED, _FORMER = 0.25, 0.2, 0.13, 0.09, 0.09, 0.03
_APART = ("link", "decide", "outweigh", "together", "pass", "remark")  # what chains.toml has besides chains


@dataclass(frozen=True, slots=True)
class Step:
    """One call: arguments from slots (`{slot}`), from an earlier call's result (`1.field`) or as JSON.

    With `each` it is one call for each of two values of that argument, and `best` says which counts: most or least of
    a field (`max`, `score`).
    """

    entry: Entry
    arguments: Mapping[str, str]
    each: str = ""
    best: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Written:
    """A chain of chains.toml."""

    name: str
    steps: tuple[Step, ...]
    say: tuple[str, ...]


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("chains.toml").read_text(encoding="utf-8"))


@cache
def written() -> tuple[Written, ...]:
    return tuple(
        Written(name, tuple(map(_step, lines(chain["calls"]))), lines(chain["say"]))
        for name, chain in _table().items()
        if name not in _APART
    )


def _step(text: str) -> Step:
    name, *parts = text.removeprefix("each ").split()
    arguments = dict(part.split("=", 1) for part in parts)
    if not text.startswith("each "):
        return Step(shelf()[name], arguments)
    most = next(key for key in ("max", "min") if key in arguments)
    best = (most, arguments.pop(most))
    return Step(shelf()[name], arguments, next(iter(arguments)), best)


@cache
def links() -> tuple[tuple[Entry, Result, Entry, Param], ...]:
    """A tool, the field of its result, and another tool with the parameter that takes it."""
    return tuple(
        (first, result, second, param)
        for first in shelf().values()
        for result in first.result
        if result.gives
        for second in shelf().values()
        for param in second.params.values()
        if result.gives in param.takes and not serves(second.name, first.name)
    )


def multi_step(d: Draft) -> Flags:
    """Two or three calls, later ones made from what earlier ones returned."""
    show = Display(d, repeats=True)
    entries, name = d.r.choices(_WAYS, _SHARES)[0](show)
    return {"offer": show.offer(*entries), "shelf": True, "chain": f"shelf {name}"}


def deciding(d: Draft) -> Flags:
    """Such a chain in which a result decides, or a question about which of two has more."""
    show = Display(d, repeats=True)
    entries, name = d.r.choices(_DECIDING, _DECIDING_SHARES)[0](show)
    return {"offer": show.offer(*entries), "shelf": True, "chain": f"shelf {name}"}


@cache
def frames(part: str) -> Mapping[str, tuple[str, ...]]:
    """Words of a part of chains.toml that has no chains: one a line, or between slashes."""
    return {name: lines(text.replace(" / ", "\n")) for name, text in _table()[part].items()}


def _decided(show: Display) -> tuple[list[Entry], str]:
    return decided(show, frames("decide"), frames("remark"))


def _outweighed(show: Display) -> tuple[list[Entry], str]:
    return outweighed(show, frames("outweigh"))


def _asked(show: Display) -> tuple[list[Entry], str]:
    return asked(show, frames("outweigh"))


def _together(show: Display) -> tuple[list[Entry], str]:
    return together(show, frames("together"), frames("remark")["together"])


def _passed_on(show: Display) -> tuple[list[Entry], str]:
    return passed_on(show, frames("pass"))


def _former(show: Display) -> tuple[list[Entry], str]:
    return former(show, frames("pass"))


def _written(show: Display) -> tuple[list[Entry], str]:
    return _of(show, show.r.choice(written()))


def _weighing(show: Display) -> tuple[list[Entry], str]:
    """One of those that compare two things, or give on what was set before."""
    return _of(show, show.r.choice(weighing()))


@cache
def weighing() -> tuple[Written, ...]:
    return tuple(
        chain for chain in written() if any(step.each or "1.was" in step.arguments.values() for step in chain.steps)
    )


def _of(show: Display, chain: Written) -> tuple[list[Entry], str]:
    d = show.d
    source = d.r.choice(chain.say)
    slots = _drawn(show, chain)
    request = show.fill(source, slots)
    d.user(request)
    uses: dict[str, list[str]] = {}
    for step in chain.steps:
        uses.setdefault(step.entry.name, []).extend(step.arguments)
    tools = {name: show.show(shelf()[name], used) for name, used in uses.items()}
    d.needed += [tool.name for tool in tools.values()]
    found: list[Mapping[str, Any]] = []
    arguments: dict[str, Any] = {}
    for step in chain.steps:
        tool = tools[step.entry.name]
        arguments = {name: _resolved(raw, request, found) for name, raw in step.arguments.items()}
        if any(raw == "1.was" for raw in step.arguments.values()):
            d.because("before", value=found[0]["was"], other=said(slots["other"]).text)
        if step.each:
            found.append(_best(d, tool, step, arguments, [said(item).text for item in slots[step.each]]))
            continue
        taken = [re.fullmatch(r"(\d)\.(\w+)", raw) for raw in step.arguments.values()]
        each = {(index, one.each) for index, one in enumerate(chain.steps, 1) if one.each}
        told = [found[int(at[1]) - 1][at[2]] for at in taken if at and (int(at[1]), at[2]) not in each]
        _unsaid(request, told)
        if any(value in request.arguments.values() for value in told):
            raise Unsuitable("as it was said")
        found += d.call(tool.call(arguments))
    last = chain.steps[-1]
    words = {name: slots[raw.strip("{}")] for name, raw in last.arguments.items() if raw.startswith("{")}
    d.say(show.answer(last.entry, d.r.randrange(64), arguments, words, found[-1]))
    return [step.entry for step in chain.steps], chain.name


def _drawn(show: Display, chain: Written) -> dict[str, Any]:
    """Values for the slots of all calls, each drawn for the first call that has it."""
    slots: dict[str, Any] = {}
    for step in chain.steps:
        names = {key: raw.strip("{}") for key, raw in step.arguments.items() if raw.startswith("{")}
        drawn = show.slots(step.entry, [key for key, slot in names.items() if slot not in slots])
        if step.each:
            drawn[step.each] = show.values(step.entry, step.each, 2)
        slots.update({names[key]: item for key, item in drawn.items()})
    if "other" in slots and said(slots["other"]).value in [
        said(x).value for name, x in slots.items() if name != "other"
    ]:
        raise Unsuitable("the same twice")
    return slots


def _best(d: Draft, tool: Shown, step: Step, arguments: Mapping[str, Any], items: list[str]) -> dict[str, Any]:
    """A call for each value (`items`: as they are said) at once; the result that counts, with its value."""
    most, field = step.best
    options = [{**arguments, step.each: value} for value in arguments[step.each]]
    results = d.call(*(tool.call(one) for one in options))
    if results[0][field] == results[1][field]:
        raise Unsuitable("alike")
    first = (results[0][field] > results[1][field]) == (most == "max")
    index = 0 if first else 1
    values = [result[field] for result in results]
    more, less = ("later", "earlier") if isinstance(values[0], str) else ("higher", "lower")
    d.because("which", **versus(items, values, index, more if most == "max" else less))
    return {**results[index], step.each: options[index][step.each]}


def _resolved(raw: str, request: Filled, found: list[Mapping[str, Any]]) -> Any:
    if raw.startswith("{"):
        return request.arguments[raw.strip("{}")]
    if match := re.fullmatch(r"(\d)\.(\w+)", raw):
        return found[int(match[1]) - 1][match[2]]
    return json.loads(raw)


def _unsaid(request: Filled, values: list[Any]) -> None:
    """Raises Unsuitable where the request gives away what has to be looked up."""
    text = "".join(piece.text for piece in request.pieces)
    if any(shown(value) in text for value in values):
        raise Unsuitable("said already")


def _linked(show: Display) -> tuple[list[Entry], str]:
    d = show.d
    first, result, second, param = d.r.choice(links())
    before = show.line(first, lambda line: parse(line).imperative)
    slot = re.compile(rf"\{{(on:)?{param.name}\}}( euros)?")
    after = show.line(second, lambda line: parse(line).imperative and bool(slot.search(line)))
    after = slot.sub(lambda match: f"{'on ' if match[1] else ''}{result.noun}", after)
    slots = [show.slots(first, parse(before).slots), show.slots(second, parse(after).slots)]
    one, other = (fill(source, drawn) for source, drawn in zip((before, after), slots, strict=True))
    frame = d.r.choice(frames("link")["say"]).replace("{noun}", result.noun)
    d.templates += [before, after]
    d.dated = d.dated or one.dated or other.dated
    request = framed(frame, a=one, b=other)
    d.user(request)
    tools = [show.show(first, list(one.arguments)), show.show(second, [*other.arguments, param.name])]
    d.needed += [tool.name for tool in tools]
    (found,) = d.call(tools[0].call(one.arguments))
    _unsaid(request, [found[result.name]])
    arguments = {**other.arguments, param.name: found[result.name]}
    show.serve((tools[1], arguments, slots[1]))
    return [first, second], "linked"


_WAYS = (_written, _decided, _outweighed, _together, _passed_on, _former, _linked)
_PUT = (_WRITTEN, _DECIDED, _OUTWEIGHED, _TOGETHER, _PASSED, _FORMER)
_SHARES = (*_PUT, 1 - sum(_PUT))
_DECIDING = (_decided, _outweighed, _asked, _together, _weighing)
_DECIDING_SHARES = (0.42, 0.24, 0.06, 0.08, 0.2)
