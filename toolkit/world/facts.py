"""Small questions that need no tool, with their answers."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from toolkit.world.language import Filled, compose, fill
from toolkit.world.spec import TOOLS


@cache
def _facts() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files(__package__).joinpath("facts.toml").read_text(encoding="utf-8"))


def fact(r: Random, key: str) -> tuple[Filled, str, tuple[str, ...]]:
    """A question in the split's words, its answer, and the domains whose tools might be taken to answer it."""
    groups = _facts()
    name = r.choice(tuple(groups))
    group = groups[name]
    if name == "sum":
        a, b = r.randint(2, 20), r.randint(2, 20)
        fields: dict[str, Any] = {"a": a, "b": b, "c": a + b}
    else:
        fields = dict(zip("ab", r.choice(group["rows"].strip().splitlines()).split("|"), strict=True))
    question = fill(r.choice(group[key]), fields)
    return question, compose(r.choice(group["answers"]), fields), tuple(group.get("avoid", ()))


def likely_answerer(tool: str, avoid: tuple[str, ...]) -> bool:
    return TOOLS[tool].domain in avoid
