"""From templates and slot values to what a user types.

A request template is a sentence ("Is it raining in {city}?") or, when it starts in lower case, an imperative ("show me
the rain in {city}") that frames such as "could you {x}?" take up. Its slots are exactly the arguments of the expected
call; `@key=value` at its end adds an argument that the words imply, and slots that start with an underscore add none.
Only the template's own words are ever lower-cased or misspelt: slot values reach the user text as they are.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from toolkit.world.spec import Unsuitable, clock

_SLOT = re.compile(r"\{(?:(on):)?(\w+)\}")
_CAPITALISED = re.compile(r"\b[A-Z](?![A-Z])")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Said:
    """A value and how the user says it.

    `dated` means that it takes today's date to understand; `bare` that no "on" goes before it ("tomorrow").
    """

    value: Any
    text: str
    dated: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal and slot pieces in turn, the slots' names, and the implied arguments."""

    source: str
    pieces: tuple[tuple[str, str], ...]  # ("", literal) or (slot name, "on" or "")
    fixed: Mapping[str, Any]

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.pieces if name)

    @property
    def arguments(self) -> set[str]:
        """Names of the arguments that a call made from this template has."""
        return {name for name in self.slots if not name.startswith("_")} | set(self.fixed)

    @property
    def imperative(self) -> bool:
        """Whether frames can take it up: it starts in lower case and is one sentence without its full stop."""
        name, text = self.pieces[0]
        literal = "".join(text if not slot else "x" for slot, text in self.pieces)
        return not name and text[:1].islower() and not re.search(r"[.?!](\s|$)", literal)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of user text; `literal` pieces are template words, the others are slot values."""

    text: str
    literal: bool = True


@dataclass(frozen=True, slots=True)
class Filled:
    """A template with its slots filled: the text in pieces, and the arguments it asks for."""

    pieces: tuple[Piece, ...]
    arguments: dict[str, Any]
    imperative: bool
    dated: bool
    template: str


@cache
def parse(source: str) -> Template:
    text, *implied = source.split(" @")
    fixed: dict[str, Any] = {}
    for item in implied:
        key, _, raw = item.partition("=")
        try:
            fixed[key] = json.loads(raw)
        except ValueError:
            fixed[key] = raw
    pieces: list[tuple[str, str]] = []
    end = 0
    for match in _SLOT.finditer(text):
        if match.start() > end:
            pieces.append(("", text[end : match.start()]))
        pieces.append((match[2], match[1] or ""))
        end = match.end()
    if end < len(text):
        pieces.append(("", text[end:]))
    return Template(source, tuple(pieces), fixed)


def said(value: Any) -> Said:
    """How a value is said when the sampler did not decide: as it is."""
    if isinstance(value, Said):
        return value
    if isinstance(value, list):
        parts = [said(item) for item in value]
        return Said([p.value for p in parts], join([p.text for p in parts]), any(p.dated for p in parts))
    return Said(value, str(value))


def join(items: Sequence[str], word: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def spoken(name: str) -> str:
    """The name of an attribute or argument in words."""
    text = name.replace("_", " ")
    return re.sub(r" gb$", " in GB", re.sub(r" eur$", " in euros", text))


def fill(source: str, slots: Mapping[str, Any]) -> Filled:
    """Raises Unsuitable where a slot has no value in this world."""
    template = parse(source)
    pieces: list[Piece] = []
    arguments: dict[str, Any] = {}
    dated = False
    for name, extra in template.pieces:
        if not name:
            pieces.append(Piece(extra))
            continue
        if slots.get(name) is None:
            raise Unsuitable(name)
        value = said(slots[name])
        if extra and not value.bare:
            pieces.append(Piece(extra + " "))
        pieces.append(Piece(value.text, literal=False))
        dated = dated or value.dated
        if not name.startswith("_"):
            arguments[name] = value.value
    arguments.update(template.fixed)
    return Filled(tuple(pieces), arguments, template.imperative, dated, source)


def splice(frame: str, parts: Mapping[str, Iterable[Piece]]) -> tuple[Piece, ...]:
    """A frame such as "could you {x}?" with pieces put in for its slots."""
    pieces: list[Piece] = []
    for name, text in parse(frame).pieces:
        if name:
            pieces.extend(parts[name])
        elif pieces and text.startswith(".") and pieces[-1].text.endswith((".", '."', '?"')):
            pieces.append(Piece(text[1:]))  # the quoted sentence has its own full stop
        else:
            pieces.append(Piece(text))
    return tuple(piece for piece in pieces if piece.text)


def plain(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def capital(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with their first letter in upper case, if that letter is the template's."""
    first = pieces[0]
    if not first.literal:
        return tuple(pieces)
    return (Piece(first.text[:1].upper() + first.text[1:]), *pieces[1:])


def lower(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Literal words in lower case, except those in capitals such as EUR or ID."""
    return tuple(Piece(_CAPITALISED.sub(lambda m: m[0].lower(), p.text)) if p.literal else p for p in pieces)


def misspell(r: Random, pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """One or two slips of the fingers in the template's own words."""
    result = list(pieces)
    for _ in range(r.choice((1, 1, 2))):
        places = [
            (i, match)
            for i, piece in enumerate(result)
            if piece.literal
            for match in re.finditer(r"\b[a-z]{5,}\b", piece.text)
        ]
        if not places:
            break
        i, match = r.choice(places)
        word, at = match[0], r.randrange(1, len(match[0]) - 1)
        slip = r.choice((word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :]))
        text = result[i].text
        result[i] = Piece(text[: match.start()] + slip + text[match.end() :])
    return tuple(result)


@cache
def wording() -> dict[str, Any]:
    """Frames, openers, contexts, closers and the assistant's stock phrases."""
    return tomllib.loads(files(__package__).joinpath("wording.toml").read_text(encoding="utf-8"))


@cache
def phrases() -> dict[str, dict[str, Any]]:
    """What users say for each tool, chain ("chain NAME") and refusal ("refuse NAME"), from tools/*.toml.

    `more` are requests from further.toml, further_chains.toml and further_refusals.toml, for varied training beside
    those under `say`.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in sorted(files(f"{__package__}.tools").iterdir(), key=lambda entry: entry.name):
        if item.name.endswith(".toml"):
            for name, entry in tomllib.loads(item.read_text(encoding="utf-8")).items():
                if name in ("chain", "refuse"):
                    found.update({f"{name} {key}": value for key, value in entry.items()})
                else:
                    found[name] = entry
    for name, entry in _further("further").items():
        found[name]["more"] = entry["say"].strip().splitlines()
        for param, lines in entry.get("ask", {}).items():
            found[name]["ask"][param]["more"] = lines.strip().splitlines()
    for kind, part in (("chain", "further_chains"), ("refuse", "further_refusals")):
        for name, lines in _further(part).items():
            found[f"{kind} {name}"]["more"] = lines.strip().splitlines()
    return found


def _further(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


# How users say common values


def small(r: Random, low: int, high: int) -> Said:
    """A whole number, sometimes as a word."""
    value = r.randint(low, high)
    return Said(value, _NUMBERS[value] if 1 < value <= 10 and r.random() < 0.3 else str(value))


def day(r: Random, today: date, low: int = 1, high: int = 30, *, plain_only: bool = False) -> Said:
    """A date `low` to `high` days after today (negative: before); said as ISO date, "March 4", "tomorrow", "Friday"."""
    ahead = r.randint(low, high)
    when = today + timedelta(days=ahead)
    style = r.random()
    if plain_only or style < 0.5:
        return Said(when.isoformat(), when.isoformat())
    near = {-1: "yesterday", 0: "today", 1: "tomorrow", 2: "the day after tomorrow"}
    if style > 0.75:
        if ahead in near:
            return Said(when.isoformat(), near[ahead], dated=True, bare=True)
        if 0 < ahead < 7:
            return Said(when.isoformat(), f"{when:%A}", dated=True)
    # the year is left out only where today's makes it plain
    if abs(ahead) < 60:
        text = r.choice((f"{when:%B} {when.day}", f"{when.day} {when:%B}"))
        return Said(when.isoformat(), text, dated=True)
    return Said(when.isoformat(), f"{when.day} {when:%B} {when.year}")


def near_day(r: Random, today: date) -> Said:
    """A date of the coming week, more often said in words than others."""
    return day(r, today, 0, r.choice((1, 2, 6)))


def moment(r: Random, start: int = 8, end: int = 20, step: int = 15) -> Said:
    """A time of day between two hours, as HH:MM, said the same way or as "2:30 pm"."""
    minutes = r.randrange(start * 60, end * 60, step)
    if r.random() < 0.7:
        return Said(clock(minutes), clock(minutes))
    hour, rest = divmod(minutes, 60)
    minute = f":{rest:02d}" if rest else ""
    return Said(clock(minutes), f"{(hour - 1) % 12 + 1}{minute} {'am' if hour < 12 else 'pm'}")


# Answers

_FIELD = re.compile(r"\{(\^?)(\w+)(?:\|([\w ]+))?\}")


def count_noun(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{count} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}s"


def neat(value: Any) -> Any:
    """A whole float as an int, so that nobody says "21.0"."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: Any) -> str:
    """A value as an answer shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, list):
        return join([shown(item) for item in value]) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    return str(neat(value))


def compose(template: str, fields: Mapping[str, Any]) -> str:
    """An answer: `{name}` shows a field, `{^name}` with a capital, `{name|file}` counts it as "3 files".

    A missing field raises KeyError.
    """

    def show(match: re.Match[str]) -> str:
        value = fields[match[2]]
        if match[3]:
            return count_noun(len(value) if isinstance(value, list) else value, match[3])
        text = shown(value)
        return text[:1].upper() + text[1:] if match[1] else text

    return _FIELD.sub(show, template)


def answer(r: Random, entry: Mapping[str, Any], arguments: Mapping[str, Any], result: Any) -> str:
    """The assistant's words after a tool's result, by that tool's phrase entry."""
    if isinstance(result, dict) and "error" in result:
        return compose(r.choice(entry.get("error") or wording()["answers"]["error"]), {**arguments, **result})
    fields: dict[str, Any] = {**arguments, **result} if isinstance(result, dict) else {**arguments, "result": result}
    if "list" in entry:
        rows = fields[entry["list"]]
        if not rows:
            return compose(r.choice(entry["empty"]), fields)
        item = entry.get("item")
        texts = [compose(item, row) if item else shown(row) for row in rows[:6]]
        if len(rows) > 6:
            texts.append(f"{len(rows) - 6} more")
        fields["items"] = join(texts) if all(" " not in text or len(text) < 60 for text in texts) else "; ".join(texts)
        fields["count"] = len(rows)
    return compose(r.choice(entry["answers"]), fields)
