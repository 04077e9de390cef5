"""How long chats are that have not been tokenised yet, from the text of the first of them.

The text is counted by its pieces, and what the chat template puts around it is added (`toolkit.planning.pieces`). No
tokenizer is loaded for it.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit import models
from toolkit.data.calls import write_calls
from toolkit.data.notes import Reading
from toolkit.data.signatures import signature
from toolkit.data.sources import load_chats, local_files
from toolkit.errors import DataError, Problem
from toolkit.planning.pieces import Wrapping, how_to_call, pieces, wrapping_of
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.words import typed

if TYPE_CHECKING:
    from toolkit.chats import Chat, Turn
    from toolkit.data.template import CallFormat, ToolPrompt

SAMPLE = 240  # chats of a source that are looked at
LIKELY = Wrapping()
ENDED = 2  # tokens that end an assistant's turn, or open its text, and are trained


@dataclass(frozen=True, slots=True)
class Sampled:
    """The rows of some chats: `tokens` and `trained` int64[rows], by estimate, and how many chats they are of.

    `bad`: what is wrong with rows between them that can't be used, in a line.
    """

    tokens: npt.NDArray[np.int64]
    trained: npt.NDArray[np.int64]
    chats: int
    bad: str = ""


def sample(recipe: Recipe, source: SourceSection) -> Sampled | None:
    """The first chats of a source that is on this machine; None for a data set of the hub, or where no row is trained.

    Raises `DataError` for a source that can't be read at all, and where no row of it can be used.
    """
    data = recipe.data
    told = data.call_format, data.tool_prompt, data.thinking == "split", wrapping_of(models.find(recipe.model))
    if source.builtin:
        return _cached(source.model_dump_json(), *told)
    return _sample(source, *told) if local_files(source.place) is not None else None


@functools.cache
def _cached(
    source: str, call_format: CallFormat, tool_prompt: ToolPrompt, split: bool, wrapping: Wrapping
) -> Sampled | None:
    return _sample(SourceSection.model_validate_json(source), call_format, tool_prompt, split, wrapping)


def _sample(
    source: SourceSection, call_format: CallFormat, tool_prompt: ToolPrompt, split: bool, wrapping: Wrapping
) -> Sampled | None:
    once = source.model_copy(update={"weight": 1.0})
    reading = Reading()
    chats = list(itertools.islice(load_chats([once], reading), SAMPLE))
    if reading.bad and not chats:
        raise DataError([*reading.by_cause(), Problem("", f"{reading.summary()}, so there is nothing to train on")])
    rows = [row for chat in chats for row in estimated(chat, call_format, tool_prompt, wrapping, split=split)]
    if not rows:
        return None
    tokens, trained = np.array(rows).round().astype(np.int64).T
    return Sampled(tokens, trained, len(chats), _bad(reading))


def estimated(
    chat: Chat,
    call_format: CallFormat,
    tool_prompt: ToolPrompt = "signature",
    wrapping: Wrapping = LIKELY,
    *,
    split: bool = False,
) -> list[tuple[float, float]]:
    """(tokens, trained ones) of a chat's rows by estimate: one, or with `split` one for each of its answers."""
    native = call_format == "native"
    described = bool(chat.tools) or any(turn.role == "system" for turn in chat.turns)
    opening = wrapping.system if described else wrapping.plain
    if chat.tools:
        opening += wrapping.tools if native else how_to_call(call_format)
        opening += 2 * wrapping.call if call_format == "hermes" else 0  # around the tools and the example of a call
        opening += sum(_described(tool, "schema" if native else tool_prompt) for tool in chat.tools)
        if chat.turns[0].role != "system":
            opening += wrapping.turn
    return _rows(chat, opening, call_format, wrapping, split=split)


def _bad(reading: Reading) -> str:
    if not reading.bad:
        return ""
    every = typed("data", "check")
    return f"of the first rows, {reading.summary()}: {reading.by_cause()[0]}; `{every}` lists them all"


def _rows(
    chat: Chat, opening: float, call_format: CallFormat, wrapping: Wrapping, *, split: bool
) -> list[tuple[float, float]]:
    """(tokens, trained ones) of a chat's rows, one or one for each of its answers. `opening` comes first."""
    said = [_said(turn, call_format, wrapping) for turn in chat.turns]
    sizes = [
        size + (wrapping.result if turn.role == "tool" else wrapping.turn)
        for turn, size in zip(chat.turns, said, strict=True)
    ]
    for before, turn in zip((None, *chat.turns), chat.turns, strict=False):
        # results that follow each other share a turn
        opening += wrapping.turn if turn.role == "tool" and (before is None or before.role != "tool") else 0
    answers = [(i, ENDED + said[i]) for i, turn in enumerate(chat.turns) if turn.role == "assistant" and turn.trained]
    if split:
        return [(opening + sum(sizes[: i + 1]), trained) for i, trained in answers]
    return [(opening + sum(sizes), sum(trained for _, trained in answers))] if answers else []


def _said(turn: Turn, call_format: CallFormat, wrapping: Wrapping) -> float:
    """Tokens of what a turn says, and of its calls with their marks."""
    if not turn.tool_calls:
        return pieces(turn.content)
    if call_format in ("json", "jsonrpc"):
        return pieces(turn.content) + pieces(write_calls(turn.tool_calls, call_format))
    calls = (_json({"name": call.name, "arguments": call.arguments}) for call in turn.tool_calls)
    return pieces(turn.content) + sum(wrapping.call + pieces(call) for call in calls)


def _described(tool: dict[str, Any], tool_prompt: ToolPrompt) -> int:
    """Tokens of a tool as it is offered, with its line break."""
    return 1 + pieces(signature(tool) if tool_prompt == "signature" else _json(tool))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def mixed(parts: Sequence[tuple[Sampled, float]], rows: int) -> Sampled:
    """About `rows` rows that several sources, each with its share of the chats, give together."""
    whole = sum(share for _, share in parts)
    taken = [(part, max(1, round(rows * share / whole))) for part, share in parts]
    per_chat = sum(len(part.tokens) / part.chats * share for part, share in parts) / whole
    tokens = np.concatenate([np.resize(part.tokens, count) for part, count in taken])
    trained = np.concatenate([np.resize(part.trained, count) for part, count in taken])
    bad = "; ".join(part.bad for part, _ in parts if part.bad)
    return Sampled(tokens, trained, max(1, round(len(tokens) / per_chat)), bad)
