"""The expected turns of the built-in chats, written out and read back, must score as right: else nothing could."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.test_call_parsing import hermes
from toolkit.chats import Chat
from toolkit.data.call_parsing import PARSERS, parse
from toolkit.data.calls import write_calls
from toolkit.evaluation.answer_kinds import asks, refuses
from toolkit.evaluation.evaluate import prompted_turns
from toolkit.evaluation.scoring import expectation, score
from toolkit.world import chats
from toolkit.world.language import phrases


@pytest.fixture(scope="module", params=[("phrasing", False), ("tools", False), ("phrasing", True), ("tools", True)])
def held_out(request: pytest.FixtureRequest) -> list[tuple[Chat, int]]:
    split, test = request.param
    return [(chat, turn) for chat in chats(size=400, split=split, test=test) for turn in prompted_turns(chat, "all")]


def written(chat: Chat, turn: int, call_format: Any) -> str:
    calls = list(chat.turns[turn].tool_calls)
    if not calls:
        return chat.turns[turn].content
    return hermes(calls) if call_format == "native" else write_calls(calls, call_format)


@pytest.mark.parametrize("call_format", PARSERS)
def test_expected_turns_are_right(held_out: list[tuple[Chat, int]], call_format: str) -> None:
    for chat, turn in held_out:
        text = written(chat, turn, call_format)
        scores = score(chat, turn, parse(text, call_format))
        assert scores.correct, (chat.where, text)
        if chat.turns[turn].tool_calls:
            assert scores.schema_valid and scores.in_format and not scores.invented_tool, (chat.where, text)


def test_only_refusals_read_as_refusals(held_out: list[tuple[Chat, int]]) -> None:
    silent = [(chat, turn) for chat, turn in held_out if not chat.turns[turn].tool_calls]
    found = {chat.turns[turn].content: refuses(chat.turns[turn].content) for chat, turn in silent}
    assert [
        chat.turns[turn].content
        for chat, turn in silent
        if found[chat.turns[turn].content] != (expectation(chat, turn) == "refuse")
    ] == []


def test_another_chats_answer_is_wrong(held_out: list[tuple[Chat, int]]) -> None:
    """The measures tell right from wrong: answers handed to the next chat are right only where that is no mistake."""
    for kind in ("single", "parallel", "multi_step", "clarify", "refuse"):
        first = [
            (chat, turn) for chat, turn in held_out if chat.kind == kind and turn == prompted_turns(chat, "first")[0]
        ]
        others = [(chat, turn) for chat, turn in held_out if chat.kind not in (kind, "irrelevance")]
        wrong = sum(
            not score(*asked, parse(written(*other, "json"), "json")).correct
            for asked, other in zip(first, others, strict=False)
        )
        assert wrong >= 0.9 * min(len(first), len(others)), kind


def test_every_question_of_the_built_in_chats_counts_as_asking() -> None:
    questions = [text for entry in phrases().values() for one in entry.get("ask", {}).values() for text in one["q"]]
    assert len(questions) > 300 and all(map(asks, questions))
