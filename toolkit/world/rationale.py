"""What the assistant writes before a call that a result decides: the two values side by side, the outcome last.

A small model that has to choose by two numbers may do better when it has written them down next to each other, as
with the rationales of Distilling Step-by-Step (Hsieh et al., 2023). Not measured here yet: docs/log.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from tomllib import loads
from typing import Any

from toolkit.world.language import compose, join, shown


@cache
def wordings() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Wordings of rationale.toml by way and by whether what was asked holds ("yes", "no")."""
    text = files(__package__).joinpath("rationale.toml").read_text(encoding="utf-8")
    return {way: {key: tuple(lines) for key, lines in table.items()} for way, table in loads(text).items()}


def rationale(r: Random, way: str, fields: Mapping[str, Any], *, holds: bool = True) -> str:
    """One wording of the way. Raises KeyError for a way that there is not, and for a field that it lacks."""
    return compose(r.choice(wordings()[way]["yes" if holds else "no"]), {name: _bare(x) for name, x in fields.items()})


def denied(test: str) -> str:
    """The opposite of "is above 5" or "comes after 10:00"."""
    return re.sub(r"^comes ", "does not come ", re.sub(r"^is ", "is not ", test))


def versus(items: Sequence[str], values: Sequence[Any], best: int, word: str) -> dict[str, Any]:
    """What a rationale says of two things and their values, of which number `best` is the `word` one ("higher")."""
    (a, b), (x, y) = items, values
    chosen = {"item": items[best], "best": values[best], "rest": values[1 - best], "word": word}
    return {"a": a, "b": b, "x": x, "y": y, **chosen}


def among(values: Sequence[Any], best: Any, word: str, item: Any) -> dict[str, Any]:
    """What a rationale says of several rows, of which `item` has the `word` value ("lowest")."""
    return {"values": join([shown(value) for value in values]), "best": best, "word": word, "item": item}


def _bare(value: Any) -> Any:
    """A thing as it was said, without its quotes where they are all around it."""
    if isinstance(value, str) and value.count('"') == 2 and value.startswith('"') and value.endswith('"'):
        return value[1:-1]
    return value
