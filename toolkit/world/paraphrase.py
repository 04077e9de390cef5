"""Other words for training requests, so that a tool is asked for in more ways than its phrases.

Only the templates' own words change, and never to a word that only held-out phrasings use or into a held-out template:
what is unseen stays unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from random import Random
from tomllib import loads
from typing import Any

from toolkit.world.language import Filled, Piece, parse, phrases, wording

_RATE = 0.45  # of a stretch that has other words


def _sources(entry: Any, key: str) -> Iterator[str]:
    """Every template under `key`, at any depth of a phrase entry."""
    if isinstance(entry, Mapping):
        for name, item in entry.items():
            if name == key and isinstance(item, list):
                yield from item
            else:
                yield from _sources(item, key)


def _literal(source: str) -> str:
    return "".join(text if not name else "{}" for name, text in parse(source).pieces).casefold()


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.casefold()))


@cache
def held_skeletons() -> frozenset[str]:
    """Templates of the development and the test set with their slots blanked."""
    return frozenset(_literal(source) for key in ("held", "test") for source in _sources(phrases(), key))


@cache
def held_words() -> frozenset[str]:
    """Words of held-out phrases and frames that no training phrase or frame has."""
    tables = (phrases(), wording())
    held, say = (
        set().union(*(_words(_literal(source)) for table in tables for source in _sources(table, key)))
        for key in ("held", "say")
    )
    return frozenset(held - say)


@cache
def _table(part: str) -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    text = files(__package__).joinpath("synonyms.toml").read_text(encoding="utf-8")
    options = {
        key: tuple(item for item in value.split(", ") if item != key and not _words(item) & held_words())
        for key, value in loads(text)[part].items()
    }
    options = {key: items for key, items in options.items() if items}
    any_of = "|".join(re.escape(key) for key in sorted(options, key=len, reverse=True))
    before = r"(?:^|(?<=and )|(?<=then )|(?<=please ))" if part == "verb" else r"(?<![\w-])"
    return re.compile(rf"{before}(?P<article>an? )?(?P<word>{any_of})(?![\w'-])", re.IGNORECASE), options


def paraphrase(r: Random, request: Filled) -> Filled:
    """The request with some of its words changed, or as it was where that would make a held-out phrasing."""
    first = True
    pieces: list[Piece] = []
    for piece in request.pieces:
        text = piece.text
        if piece.literal:
            if request.imperative or not first:
                text = _swapped(r, text, "verb", start=first)
            text = _swapped(r, text, "any", start=True)
        pieces.append(piece if text == piece.text else Piece(text))
        first = False
    if skeleton(pieces) in held_skeletons():
        return request
    return replace(request, pieces=tuple(pieces))


def skeleton(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text if piece.literal else "{}" for piece in pieces).casefold()


def _swapped(r: Random, text: str, part: str, start: bool) -> str:
    pattern, options = _table(part)

    def other(match: re.Match[str]) -> str:
        if (part == "verb" and match.start() == 0 and not start) or r.random() >= _RATE:
            return match[0]
        article, word = match["article"] or "", match["word"]
        chosen = r.choice(options[word.lower()])
        if article and (_vowel(word) != _vowel(chosen)):
            article = f"{article[0]} " if _vowel(word) else f"{article[0]}n "
        return article + (chosen[:1].upper() + chosen[1:] if word[:1].isupper() else chosen)

    return pattern.sub(other, text)


def _vowel(word: str) -> bool:
    return word[:1].lower() in tuple("aeiou")
