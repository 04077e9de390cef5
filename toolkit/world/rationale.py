"""What the assistant writes before a call that a result decides: the two values digit by digit, the outcome last; and
how a question and a refusal begin.

Written out, what decides helps a small model, as with the rationales of Distilling Step-by-Step (Hsieh et al., 2023),
but SmolLM2-135M put two numbers next to each other and then said as by chance which is more (docs/log.md). So it is
led there by steps that are each within its reach: how many digits both have, and where that is the same the digits in
turn, to the first place where they differ.

A greedy model answers with the likeliest first word. A call begins with one word, but a question with Which, What, How
and thirty others, so that a call was made at 42% where all questions together had 57%. Here all begin alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from tomllib import loads
from typing import Any

from toolkit.world.language import compose, join, shown, spoken

_TWO = (("value", "bound"), ("x", "y"))  # fields of a rationale that are compared
_PREPOSITIONS = ("at", "by", "for", "from", "in", "into", "of", "on", "to", "until", "with")
_KINDS = (re.compile(r"-?\d+(\.\d+)?"), re.compile(r"\d\d:\d\d"), re.compile(r"\d{4}-\d\d-\d\d"))


@cache
def wordings() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Wordings of rationale.toml by way and by whether what was asked holds ("yes", "no")."""
    text = files(__package__).joinpath("rationale.toml").read_text(encoding="utf-8")
    return {way: {key: tuple(lines) for key, lines in table.items()} for way, table in loads(text).items()}


def rationale(r: Random, way: str, fields: Mapping[str, Any], *, holds: bool = True) -> str:
    """One wording of the way. Raises KeyError for a way that there is not, and for a field that it lacks."""
    said = {name: _bare(x) for name, x in fields.items()}
    for one, other in _TWO:
        if one in said and other in said:
            said["steps"] = compared(said[one], said[other])
    return compose(r.choice(wordings()[way]["yes" if holds else "no"]), said)


def asking(question: str, missing: str) -> str:
    """A question for an argument, begun by what is missing."""
    name = spoken(missing)
    return f"One thing is missing: {name if name.split()[0] in _PREPOSITIONS else f'the {name}'}. {question}"


def refusing(refusal: str) -> str:
    """A refusal that begins with no."""
    text = refusal.removeprefix("Sorry, ")
    return text[:1].upper() + text[1:] if re.match(r"no\b", text, re.IGNORECASE) else f"No. {refusal}"


def compared(one: Any, other: Any) -> str:
    """Which of two numbers, times (HH:MM) or days (YYYY-MM-DD) is more, step by step.

    "2 and 2 digits before the point: same, 5 5 same, 4 9 less, so 54.7 < 59". Both digits stand before what is said of
    them: in "4<9" the sign had to be written before the second was, and 12 of 67 comparisons were wrong (docs/log.md).

    Raises ValueError for anything else.
    """
    a, b = shown(one), shown(other)
    if not any(kind.fullmatch(a) and kind.fullmatch(b) for kind in _KINDS):
        raise ValueError(f"{a} and {b} can't be compared")
    return f"{_steps(a, b)}, so {a} {_sign(a, b)} {b}"


def _steps(a: str, b: str) -> str:
    if _is_day_or_time(a):
        return _digits(re.sub(r"\D", "", a), re.sub(r"\D", "", b))
    if a.startswith("-") and b.startswith("-"):
        return f"both are below 0, {_steps(a[1:], b[1:])}"
    if a.startswith("-") or b.startswith("-"):
        return f"only {a if a.startswith('-') else b} is below 0"
    (whole, _, part), (whole_b, _, part_b) = a.partition("."), b.partition(".")
    # how many digits both have comes first, always: else two numbers of another length were compared by their first
    count = f"{len(whole)} and {len(whole_b)} digits{' before the point' if part or part_b else ''}"
    if len(whole) != len(whole_b):
        return f"{count}: {_word(len(whole), len(whole_b))}"
    length = max(len(part), len(part_b))
    return f"{count}: same, {_digits(whole + part.ljust(length, '0'), whole_b + part_b.ljust(length, '0'))}"


def _digits(a: str, b: str) -> str:
    """Two rows of as many digits in turn, to the first place where they differ: "5 5 same, 4 9 less"."""
    last = next((place for place, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a) - 1)
    return ", ".join(f"{x} {y} {_word(x, y)}" for x, y in zip(a[: last + 1], b[: last + 1], strict=True))


def _sign(a: str, b: str) -> str:
    return _order(a, b) if _is_day_or_time(a) else _order(float(a), float(b))


def _order(x: Any, y: Any) -> str:
    return "<" if x < y else ">" if x > y else "="


def _word(x: Any, y: Any) -> str:
    return {"<": "less", ">": "more", "=": "same"}[_order(x, y)]


def _is_day_or_time(text: str) -> bool:
    return any(kind.fullmatch(text) for kind in _KINDS[1:])


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
