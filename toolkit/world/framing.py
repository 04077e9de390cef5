"""Frames, contexts, replies and closings for training, put together from a small grammar (framing.toml).

`{x}`, `{name}` and slots that start with an underscore are left for the draft to fill; `<name>` is another rule of the
grammar. Joined by chance, the rules give many more wordings than a list of sentences could.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from random import Random
from tomllib import loads

_RULE = re.compile(r"<(\w+)>")


@cache
def rules() -> dict[str, tuple[str, ...]]:
    """Rule names and their options; `<name>` in an option stands for another rule."""
    text = files(__package__).joinpath("framing.toml").read_text(encoding="utf-8")
    return {name: tuple(options) for name, options in loads(text).items()}


def framing(r: Random, rule: str) -> str:
    """One wording of the rule, with the slots `{...}` left open."""
    text = r.choice(rules()[rule])
    while match := _RULE.search(text):
        text = text[: match.start()] + r.choice(rules()[match[1]]) + text[match.end() :]
    return text
