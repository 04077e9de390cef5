"""Decodes assistant turns of held-out chats and scores them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, Protocol

from toolkit.chats import Chat, ToolCall
from toolkit.data.call_parsing import Parsed, parse
from toolkit.data.calls import write_calls
from toolkit.errors import DataError
from toolkit.evaluation.results import Comparison, Evaluation, Row
from toolkit.evaluation.scoring import kind_of, score
from toolkit.inference.decode import Decoder, Generated
from toolkit.inference.without_adapter import base_columns
from toolkit.ranks import here, in_turn

__all__ = ["Comparison", "Evaluation", "base_columns", "evaluate", "prompted_turns"]


class Prompter(Protocol):
    """What is needed of `toolkit.data.render.Renderer`."""

    def prompt(self, chat: Chat, turn: int) -> str: ...


def evaluate(
    decoder: Decoder,
    renderer: Prompter,
    chats: Sequence[Chat],
    *,
    call_format: str,
    turns: Literal["first", "all"] = "first",
) -> Evaluation:
    """Decode the first (or every) assistant turn of each chat from the chat's own earlier turns, and score it.

    Ranks that train together share the turns, and each has the rows of all.

    Raises `DataError` when no chat has an assistant turn that something prompts.
    """
    asked = [(chat, turn) for chat in chats for turn in prompted_turns(chat, turns)]
    if not asked:
        raise DataError("nothing to evaluate: no chat has an assistant turn after a user's")
    started = time.perf_counter()
    mine = asked[here().rank :: here().size]
    made = decoder([renderer.prompt(chat, turn) for chat, turn in mine]) if mine else []
    rows = [
        score_row(chat, turn, one, parse(one.text, call_format, chat.tools), call_format)
        for (chat, turn), one in zip(mine, made, strict=True)
    ]
    everyone = here().gather(rows)
    settings = {
        "call_format": call_format,
        "turns": turns,
        **decoder.settings,
        "seconds": round(time.perf_counter() - started, 2),
    }
    return Evaluation(in_turn(everyone), settings)


def prompted_turns(chat: Chat, turns: Literal["first", "all"]) -> list[int]:
    """Indices of the assistant turns that a user's turn precedes: the first one, or all, without those that the data
    asks not to learn from; where `meta["judged"]` says which turns a chat is about, those."""
    if "judged" in chat.meta:
        return list(chat.meta["judged"])
    first_user = next((index for index, turn in enumerate(chat.turns) if turn.role == "user"), len(chat.turns))
    answers = [index for index, turn in enumerate(chat.turns) if turn.role == "assistant" and turn.trained]
    found = [index for index in answers if index > first_user]
    return found[:1] if turns == "first" else found


def score_row(chat: Chat, turn: int, made: Generated, parsed: Parsed, call_format: str) -> Row:
    """The row of one generated turn."""
    wanted = chat.turns[turn]
    user = next((earlier.content for earlier in reversed(chat.turns[:turn]) if earlier.role == "user"), "")
    return Row(
        where=chat.where,
        turn=turn,
        kind=kind_of(chat, turn),
        split=str(chat.meta.get("split", "")),
        source=chat.source,
        user=user,
        expected=as_text(wanted.content, wanted.tool_calls, call_format),
        generated=made.text,
        expected_calls=[asdict(call) for call in wanted.tool_calls],
        generated_calls=[asdict(call) for call in parsed.calls],
        problems=list(parsed.problems),
        scores=score(chat, turn, parsed).as_dict(),
        new_tokens=made.new_tokens,
        stopped=made.stopped,
    )


def as_text(content: str, calls: Sequence[ToolCall], call_format: str) -> str:
    """An assistant turn for people to read, calls in the call format (`native` ones as Qwen writes them)."""
    written = [write_calls(calls, call_format)] if calls else []
    return "\n".join(part for part in (content, *written) if part)
