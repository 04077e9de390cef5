"""A number of an invented thing, told alone or as one of several of its kind: what was planned and what was measured.

SmolLM2-135M took the first number of a result for the one that was asked for (a sum for a mean), since results had
mostly one number: which is meant is read from the request and the field's name here, where both may use other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.world.invented import Invented, Thing
from toolkit.world.language import join, spoken
from toolkit.world.scene import Scene
from toolkit.world.spec import Unsuitable
from toolkit.world.values import kind_of, tables

_SEVERAL = 0.5  # of tools that look a number up tell more than one
_OWN = 0.5  # of requests use the field's word, else another for it


def figure(s: Scene, thing: Thing, *, alone: bool = False) -> tuple[Invented, str, str]:
    """A tool that looks a number of the thing up, the field of its result that has it, and what a request calls it.

    `alone` is for one that tells no other number. Raises Unsuitable where the thing has no numbers.
    """
    fit = [key for key in thing.attributes if kind_of(key) in ("count", "measure", "money")]
    if not fit:
        raise Unsuitable("nothing to compare")
    look = s.shop.make("get", thing, s.r.choice(fit))
    if alone or s.r.random() >= _SEVERAL:
        return look, look.attribute, spoken(look.attribute)
    return _with_others(s, look)


def _with_others(s: Scene, look: Invented) -> tuple[Invented, str, str]:
    r, words = s.r, tables()["figures"]
    chosen = r.sample(tuple(words), r.choice((2, 2, 3)))
    style = r.choice(("{word}", "{word}_{attr}", "{attr}_{word}"))
    names = {word: style.format(word=word, attr=look.attribute) for word in chosen}
    rest = {key: kind for key, kind in look.result.items() if key != look.attribute}
    if {look.slot(role) for role in look.params} & set(names.values()):
        raise Unsuitable("an argument has the number's name")
    numbers = dict.fromkeys(names.values(), look.result[look.attribute])
    items = [*numbers.items(), *rest.items()]
    r.shuffle(items)
    look = replace(look, result=dict(items))
    look.schema["function"]["description"] += f" Tells the {join([spoken(word) for word in chosen])} one."
    s.shop.tools[look.name] = look
    asked = chosen[0]
    return look, names[asked], f"{_said(s, asked, words[asked])} {spoken(look.attribute)}"


def _said(s: Scene, word: str, others: str) -> str:
    options: Sequence[str] = others.split(", ")
    return word if s.r.random() < _OWN else s.r.choice(options)


def words_for(look: Invented, key: str, noun: str) -> dict[str, str]:
    """What a line of the grammar has to say of the number, where it is not the tool's attribute itself."""
    return {} if key == look.attribute else {"attr": noun}
