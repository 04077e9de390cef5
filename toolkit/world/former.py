"""Chains in which what something was before is an argument of another tool, which may be about nothing like it.

SmolLM2-135M read the former value rightly and then gave on the new one where the second tool was not the first again:
training had only such chains from one thing's attribute to another's.
"""

from __future__ import annotations

from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.invented import things
from toolkit.world.invented_decisions import telling_former
from toolkit.world.language import said, spoken
from toolkit.world.scene import Scene, ordered
from toolkit.world.shelf import passing
from toolkit.world.shelf.chains import frames
from toolkit.world.shelf.display import Display
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of, tables

Flags = dict[str, Any]

_SHELF = 0.4  # of these chains begin with a tool of the shelf, the others with an invented one


def former(d: Draft) -> Flags:
    """One of these chains."""
    if d.r.random() >= _SHELF:
        return _invented(d)
    show = Display(d, repeats=True)
    entries, name = passing.former(show, frames("pass"))
    return {"offer": show.offer(*entries), "shelf": True, "chain": f"shelf {name}"}


def _invented(d: Draft) -> Flags:
    s, show = Scene(d, repeats=True), Display(d, repeats=True)
    able = [(thing, key) for thing in things() for key in thing.attributes if kind_of(key) in ("count", "measure")]
    put, was, _ = telling_former(s, *d.r.choice(able))
    s.ready(put)
    (one,), new = s.ids(put, "id", 1), s.draw(put, "value")
    line = d.r.choice([x for x in tables()["say"]["set"] if x[0].islower() or x.startswith("{act}")])
    slots = {"id": s.slot(put, "id"), "value": s.slot(put, "value")}
    look = s.filled(line.format(**{**put.words(), **slots}), {put.slot("id"): one, put.slot("value"): new})
    arguments = ordered(put, {put.slot("id"): one, put.slot("value"): said(new).value})
    value = d.peek(put.name, arguments)[was]
    if value == said(new).value:
        raise Unsuitable("it had that already")
    request, param = passing.taking(show, value)
    what = d.r.choice(frames("pass")["former"]).replace("{name}", spoken(put.attribute))
    passing.say(show, frames("pass"), look, request, param, what, value)
    s.call((put, arguments))
    d.because("before", value=value, other=f"the {spoken(param.name)}")
    passing.serve(show, request, param, value)
    return {"offer": show.offer(request.entry), "invented": True, "shelf": True, "chain": "former invented"}
