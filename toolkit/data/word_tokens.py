"""Tokens of English text, word by word: a byte-level BPE tokenizer takes each word for itself, so a word that came
before, as nearly all of a table's did, needs no tokenizer again.

Only for tokenizers that are known to cut text as one of the patterns here does, and text of printable ASCII, for which
the patterns say the same in Python as in the tokenizer; all else goes to the tokenizer itself. A test holds both to the
same tokens and offsets.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

_MOST_WORDS = 100_000  # that are remembered
_LONGEST_WORD = 64
_PLAIN = re.compile(r"[\t\n\r\x20-\x7e]*")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"
# Digits are taken out first, so to blank space a digit is as the end of the text is.
_GPT2_WITH_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+(?![^\s0-9])|\s+"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UNFOLDED = ("NFC", "NFD", "NFKC", "NFKD")  # leave ASCII as it is

Offsets = tuple[tuple[int, int], ...]


class WordTokens:
    """Tokens of one text, with the names of `tokenizers.Encoding` for as much of it as is asked for here."""

    def __init__(self, words: list[str], ids: list[tuple[int, ...]], offsets: dict[str, Offsets]) -> None:
        self.ids = list(chain.from_iterable(ids))
        self._words = words
        self._word_ids = ids
        self._known = offsets

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self._words)))

    @cached_property
    def _counts(self) -> list[int]:
        return list(accumulate(map(len, self._word_ids)))

    @property
    def offsets(self) -> list[tuple[int, int]]:
        found, start = [], 0
        for word in self._words:
            found += [(start + first, start + last) for first, last in self._known[word]]
            start += len(word)
        return found

    def char_to_token(self, place: int) -> int | None:
        """The token that holds the character at `place`."""
        index = bisect_right(self._ends, place)
        if index == len(self._words):
            return None
        inner = place - (self._ends[index - 1] if index else 0)
        before = self._counts[index - 1] if index else 0
        offsets = self._known[self._words[index]]
        return next((before + at for at, (start, stop) in enumerate(offsets) if start <= inner < stop), None)

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        """The range of characters that a token holds."""
        index = bisect_right(self._counts, token)
        if index == len(self._words):
            return None
        start = self._ends[index - 1] if index else 0
        first, last = self._known[self._words[index]][token - (self._counts[index - 1] if index else 0)]
        return start + first, start + last


class WordTokenizer:
    """A `tokenizers.Tokenizer` that remembers words."""

    def __init__(self, backend: Any, pattern: str) -> None:
        self._backend = backend
        added = sorted((one.content for one in backend.get_added_tokens_decoder().values()), key=len, reverse=True)
        self._added = re.compile("(" + "|".join(map(re.escape, added)) + ")") if added else None
        self._words = re.compile(pattern, re.ASCII)
        self._ids: dict[str, tuple[int, ...]] = {}
        self._offsets: dict[str, Offsets] = {}

    def encode(self, text: str, add_special_tokens: bool = False) -> Any:
        if add_special_tokens or not _PLAIN.fullmatch(text):
            return self._backend.encode(text, add_special_tokens=add_special_tokens)
        words = self._cut(text)
        try:
            ids = [self._ids[word] for word in words]
        except KeyError:
            if not all(map(self._learn, set(words).difference(self._ids))):
                return self._backend.encode(text, add_special_tokens=False)
            ids = [self._ids[word] for word in words]
        return WordTokens(words, ids, self._offsets)

    def _cut(self, text: str) -> list[str]:
        if self._added is None:
            return self._words.findall(text)
        words: list[str] = []
        for index, part in enumerate(self._added.split(text)):
            if index % 2:
                words.append(part)
            elif part:
                words += self._words.findall(part)
        return words

    def _learn(self, word: str) -> bool:
        """Whether a new word could be kept."""
        if len(word) > _LONGEST_WORD or len(self._ids) >= _MOST_WORDS:
            return False
        found = self._backend.encode(word, add_special_tokens=False)
        self._offsets[word] = tuple(found.offsets)  # before the ids, which say that both are there
        self._ids[word] = tuple(found.ids)
        return True


def by_words(backend: Any) -> Any:
    """`backend`, a `tokenizers.Tokenizer`, as a `WordTokenizer` where it is known to be one of words; else itself.

    Either way it truncates and pads no more.
    """
    backend.no_truncation()
    backend.no_padding()
    pattern = _pattern(_state(backend.pre_tokenizer))
    plain = (
        pattern is not None
        and type(backend.model).__name__ == "BPE"
        and not backend.model.dropout
        and not backend.encode_special_tokens  # which cuts them as text
        and _state(backend.normalizer).get("type") in (None, *_UNFOLDED)
        and _leaves_offsets(_state(backend.post_processor))
        and all(
            not (one.lstrip or one.rstrip or one.single_word or one.normalized) and one.content
            for one in backend.get_added_tokens_decoder().values()
        )
    )
    return WordTokenizer(backend, pattern) if plain and pattern is not None else backend


def _state(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return state


def _pattern(state: dict[str, Any]) -> str | None:
    """What a pre-tokenizer cuts ASCII by, where that is known."""
    match state.get("pretokenizers", [state]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return _GPT2
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ]:
            return _GPT2_WITH_DIGITS
        case [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if regex == _QWEN2_SPLIT:
            return _QWEN2
    return None


def _leaves_offsets(state: dict[str, Any]) -> bool:
    parts: Sequence[dict[str, Any]] = state.get("processors", [state])
    return all(
        part.get("type") in (None, "TemplateProcessing")
        or (part["type"] == "ByteLevel" and part.get("trim_offsets") is False)
        for part in parts
    )
