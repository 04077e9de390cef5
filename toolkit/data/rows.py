"""A row of text: who wrote which characters, its tokens, and which of them are trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.data.calls import Messages
from toolkit.errors import DataError, Problem

TEXT_ROLES = ("system", "tools", "user", "assistant", "tool", "markup")


@dataclass(frozen=True, slots=True)
class Row:
    """A text with its trained character ranges.

    `role_spans` names who wrote which range: a role, `tools` for the schemas, and markup for everything in between.
    `where` is the chat's place, `turn` the index of the (last) assistant turn trained.
    """

    text: str
    spans: list[tuple[int, int]]
    role_spans: list[tuple[str, int, int]]
    where: str
    turn: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a row: `input_ids` int32[T] and `trained` bool[T], T <= max_length.

    `truncated` when tokens were cut from the right, `lost` is how many of them were to be trained. `roles` counts the
    tokens of each role before the cut.
    """

    input_ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    truncated: bool
    lost: int = 0
    roles: dict[str, int] = field(default_factory=dict)


class Tokens:
    """A text's tokens, tokenised in one go or, with a border, as two texts that meet there."""

    def __init__(self, backend: Any, text: str, border: int) -> None:
        texts = [text[:border], text[border:]] if border else [text]
        self._parts = [backend.encode(part, add_special_tokens=False) for part in texts]
        self._border = border
        self._before = len(self._parts[0].ids) if border else 0
        self.ids: list[int] = [number for part in self._parts for number in part.ids]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        first, *rest = self._parts
        moved = [(start + self._border, stop + self._border) for part in rest for start, stop in part.offsets]
        return [*first.offsets, *moved]

    def at(self, place: int) -> int | None:
        """The (first) token that holds the character at `place`."""
        if place < self._border or not self._border:
            found: int | None = self._parts[0].char_to_token(place)
            return found
        found = self._parts[1].char_to_token(place - self._border)
        return None if found is None else found + self._before

    def start_of(self, token: int) -> int:
        if token < self._before or not self._border:
            return int(self._parts[0].token_to_chars(token)[0])
        return int(self._parts[1].token_to_chars(token - self._before)[0]) + self._border


def encode(row: Row, tokens: Tokens, *, ends: Mapping[int, str], max_length: int | None = None) -> Encoded:
    """Mask a row's tokens. Raises `DataError` when a trained range does not fall on token boundaries, or does not end
    in one of the tokens that close an answer, `ends`."""
    ids = np.array(tokens.ids, dtype=np.int32)
    trained = np.zeros(len(ids), dtype=np.bool_)
    for start, stop in row.spans:
        first, last = tokens.at(start), tokens.at(stop - 1)
        if first is None or last is None or tokens.start_of(first) != start:
            raise DataError(Problem(row.where, "an answer does not begin at a token boundary"))
        if int(ids[last]) not in ends:
            raise DataError(Problem(row.where, f"an answer does not end in {' or '.join(map(repr, ends.values()))}"))
        trained[first : last + 1] = True
    roles = _tokens_by_role(tokens, row)
    if max_length is None or len(ids) <= max_length:
        return Encoded(ids, trained, truncated=False, roles=roles)
    lost = int(trained[max_length:].sum())
    return Encoded(ids[:max_length], trained[:max_length], truncated=True, lost=lost, roles=roles)


def _tokens_by_role(tokens: Tokens, row: Row) -> dict[str, int]:
    counts = dict.fromkeys(TEXT_ROLES, 0)
    for role, start, stop in row.role_spans:
        first, last = tokens.at(start), tokens.at(stop - 1) if stop > start else None
        if first is not None and last is not None:
            counts[role] += last + 1 - first
    counts["markup"] = max(0, len(tokens.ids) - sum(counts.values()))
    return counts


def role_spans(text: str, given: Messages, spans: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Who wrote which characters, in order. Assistants' ranges are the trained ones; in a split row the earlier
    answers count as markup of the prompt."""
    found: list[tuple[str, int, int]] = []
    cursor = 0
    system_end = None
    for role, piece in given.pieces:
        if role == "assistant":
            continue
        place, stop = _found(text, piece.strip(), cursor)
        if place < 0:
            continue
        if given.tools and system_end is None and role != "system":
            # The template wrote the tools itself: they are what stands before the first turn, but for its header.
            system_end = text.rfind("\n", 0, place) if "\n" in text[:place] else place
            found.append(("tools", cursor, max(cursor, system_end)))
        found.append((role, place, stop))
        cursor = stop
    return sorted(found + [("assistant", start, stop) for start, stop in spans], key=lambda span: span[1])


def _found(text: str, piece: str, cursor: int) -> tuple[int, int]:
    """Where a piece stands, as it is or as the inside of a JSON string (`jsonrpc` results); -1 where it does not."""
    for written in (piece, json.dumps(piece, ensure_ascii=False)[1:-1]):
        if written and (place := text.find(written, cursor)) >= 0:
            return place, place + len(written)
    return -1, -1
