"""How long chats are that have not been tokenised yet, from the text of the first of them.

    tokens = CHARACTERS x characters + TURN x turns (+ OPENING, where the template shows the tools)

fitted to Qwen3's and SmolLM2's tokens of built-in chats and of a file of real ones, within 10% of the mean of each.
No tokenizer is loaded for it.
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

from toolkit.data.calls import write_calls
from toolkit.data.notes import Reading
from toolkit.data.signatures import signature
from toolkit.data.sources import load_chats, local_files
from toolkit.errors import DataError, Problem
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.words import typed

if TYPE_CHECKING:
    from toolkit.chats import Chat, Turn
    from toolkit.data.template import CallFormat, ToolPrompt

SAMPLE = 240  # chats of a source that are looked at
CHARACTERS = 0.28  # tokens for each: schemas, JSON and English alike
TURN = 14  # tokens of a turn's header and end, and of the marks around its calls and results
ENDED = 8  # of these, an assistant's turn trains
OPENING = 50  # tokens that a model's own template puts around the tools
HOW = {"hermes": 10, "json": 10, "jsonrpc": 40}  # that ours puts there


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
    told = data.call_format, data.tool_prompt, data.thinking == "split"
    if source.builtin:
        return _cached(source.model_dump_json(), *told)
    return _sample(source, *told) if local_files(source.source) is not None else None


@functools.cache
def _cached(source: str, call_format: CallFormat, tool_prompt: ToolPrompt, split: bool) -> Sampled | None:
    return _sample(SourceSection.model_validate_json(source), call_format, tool_prompt, split)


def _sample(source: SourceSection, call_format: CallFormat, tool_prompt: ToolPrompt, split: bool) -> Sampled | None:
    once = source.model_copy(update={"weight": 1.0})
    reading = Reading()
    chats = list(itertools.islice(load_chats([once], reading), SAMPLE))
    if reading.bad and not chats:
        raise DataError([*reading.by_cause(), Problem("", f"{reading.summary()}, so there is nothing to train on")])
    rows = [row for chat in chats for row in estimated(chat, call_format, tool_prompt, split=split)]
    if not rows:
        return None
    tokens, trained = np.array(rows).round().astype(np.int64).T
    return Sampled(tokens, trained, len(chats), _bad(reading))


def estimated(
    chat: Chat, call_format: CallFormat, tool_prompt: ToolPrompt = "signature", *, split: bool = False
) -> list[tuple[float, float]]:
    """(tokens, trained ones) of a chat's rows by estimate: one, or with `split` one for each of its answers."""
    if call_format == "native":
        offered = OPENING + CHARACTERS * sum(map(_json, chat.tools))
    else:
        offered = CHARACTERS * sum(_described(tool, tool_prompt) for tool in chat.tools)
        offered += HOW[call_format] if chat.tools else 0
    return _rows(chat, offered, call_format, split=split)


def _bad(reading: Reading) -> str:
    if not reading.bad:
        return ""
    every = typed("data", "check")
    return f"of the first rows, {reading.summary()}: {reading.by_cause()[0]}; `{every}` lists them all"


def _rows(chat: Chat, offered: float, call_format: CallFormat, *, split: bool) -> list[tuple[float, float]]:
    """(tokens, trained ones) of a chat's rows, one or one for each of the assistant's turns; `offered` of its tools."""
    sizes = [CHARACTERS * _characters(turn, call_format) + TURN for turn in chat.turns]
    said = [
        (i, ENDED + size - TURN)
        for i, (turn, size) in enumerate(zip(chat.turns, sizes, strict=True))
        if turn.role == "assistant" and turn.trained
    ]
    if split:
        return [(offered + sum(sizes[: i + 1]), trained) for i, trained in said]
    return [(offered + sum(sizes), sum(trained for _, trained in said))] if said else []


def _characters(turn: Turn, call_format: CallFormat) -> int:
    if call_format in ("native", "hermes") or not turn.tool_calls:
        return len(turn.content) + sum(len(call.name) + _json(call.arguments) + 30 for call in turn.tool_calls)
    return len(turn.content) + len(write_calls(turn.tool_calls, call_format))


def _described(tool: dict[str, Any], tool_prompt: ToolPrompt) -> int:
    return len(signature(tool)) if tool_prompt == "signature" else _json(tool["function"])


def _json(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def mixed(parts: Sequence[tuple[Sampled, float]], rows: int) -> Sampled:
    """About `rows` rows that several sources, each with its share of the chats, give together."""
    whole = sum(share for _, share in parts)
    taken = [(part, max(1, round(rows * share / whole))) for part, share in parts]
    per_chat = sum(len(part.tokens) / part.chats * share for part, share in parts) / whole
    tokens = np.concatenate([np.resize(part.tokens, count) for part, count in taken])
    trained = np.concatenate([np.resize(part.trained, count) for part, count in taken])
    bad = "; ".join(part.bad for part, _ in parts if part.bad)
    return Sampled(tokens, trained, max(1, round(len(tokens) / per_chat)), bad)
