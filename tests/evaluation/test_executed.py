"""Executed evaluation with planted models: the chats' own answers succeed, and each way to go wrong fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from toolkit.chats import KINDS, Chat, ToolCall, Turn
from toolkit.data.calls import write_calls
from toolkit.data.render import Renderer
from toolkit.errors import DataError
from toolkit.evaluation import executed as module
from toolkit.evaluation.executed import Made, as_expected, evaluate_executed, replay
from toolkit.evaluation.results import Evaluation, Row
from toolkit.inference.decode import Done, Generated, TorchDecoder
from toolkit.world import TOOLS, World, chats

CHATS = list(chats(size=160, split="phrasing"))
Answers = Callable[[Chat], Iterator[str]]


class Conversations:
    """In place of renderer and model: the prompt is the chat's place and what was said, the answers are planted."""

    def __init__(self, given: list[Chat], answers: Answers) -> None:
        self.settings: dict[str, Any] = {}
        self.answers = {chat.where: answers(chat) for chat in given}
        self.seen: list[Chat] = []

    def prompt(self, chat: Chat, turn: int) -> str:
        assert chat.turns[turn] == Turn("assistant") and turn == len(chat.turns) - 1
        self.seen.append(chat)
        return chat.where

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        return [Generated(next(self.answers[prompt]), 3, True) for prompt in prompts]


def written(turn: Turn) -> str:
    return write_calls(turn.tool_calls, "json") if turn.tool_calls else turn.content


def gold(chat: Chat) -> Iterator[str]:
    yield from (written(turn) for turn in chat.turns if turn.role == "assistant")


def run(given: list[Chat], answers: Answers, **options: Any) -> Evaluation:
    conversations = Conversations(given, answers)
    result = evaluate_executed(conversations, conversations, given, call_format="json", **options)
    result.summary()
    return result


def one(chat: Chat, *answers: str, **options: Any) -> Row:
    return run([chat], lambda _: iter(answers), **options).rows[0]


def find(kind: str, wanted: Callable[[Chat], bool] = lambda _: True) -> Chat:
    return next(chat for chat in CHATS if chat.kind == kind and wanted(chat))


def calling_turns(chat: Chat) -> list[Turn]:
    return [turn for turn in chat.turns if turn.tool_calls]


def test_chats_one_by_one_end_as_they_do_together() -> None:
    def halves(chat: Chat) -> Iterator[str]:
        return gold(chat) if CHATS.index(chat) % 2 else iter(["Nothing to do."] * 12)

    apart, together = (run(CHATS, halves, one_by_one=way).rows for way in (True, False))
    assert apart == together and {row.correct for row in apart} == {True, False}

    conversations = Conversations(CHATS, gold)
    evaluate_executed(conversations, conversations, CHATS, call_format="json", one_by_one=True)
    order = [where for where, _ in groupby(chat.where for chat in conversations.seen)]
    assert order == [chat.where for chat in CHATS]  # none begins before the one before it is done


def test_the_chats_own_answers_succeed_and_see_the_chats_own_results() -> None:
    conversations = Conversations(CHATS, gold)
    result = evaluate_executed(conversations, conversations, CHATS, call_format="json")
    assert [row.where for row in result.rows if not row.correct] == []
    assert {row.kind for row in result.rows} == set(KINDS[:-1])
    last = {chat.where: chat for chat in conversations.seen}
    for chat in CHATS:  # all but the last answer, which nothing follows
        assert last[chat.where].turns[:-1] == chat.turns[:-1]


def chain() -> Chat:
    """A chain whose calls follow one another, one a turn."""
    return find("multi_step", lambda chat: len(calling_turns(chat)) > 1 and "error" not in str(chat.turns))


def test_a_chain_in_the_wrong_order_fails() -> None:
    chat = chain()
    answers = list(gold(chat))
    right = one(chat, *answers)
    assert right.correct
    answers[0], answers[1] = answers[1], answers[0]
    wrong = one(chat, *answers)
    assert not wrong.correct and not wrong.scores["calls"]


def test_a_chain_guessed_all_at_once_is_judged_by_its_order() -> None:
    chat = chain()
    first, second = (turn.tool_calls[0] for turn in calling_turns(chat)[:2])
    rest = list(gold(chat))[2:]
    assert not one(chat, write_calls([second, first], "json"), *rest).correct


def test_parallel_calls_may_come_one_by_one_and_in_any_order() -> None:
    chat = find("parallel", lambda chat: len(calling_turns(chat)) == 1 and reads_only(chat))
    calls = calling_turns(chat)[0].tool_calls
    final = chat.turns[-1].content
    for order in (calls, calls[::-1]):
        assert one(chat, *(write_calls([call], "json") for call in order), final).correct
    assert not one(chat, write_calls(calls[:1], "json"), final).correct
    assert not one(chat, write_calls([*calls, calls[0]], "json"), final).correct


def simple() -> Chat:
    """One call that changes nothing, so that it can be made again."""

    def fits(chat: Chat) -> bool:
        return len(calling_turns(chat)) == 1 and "error" not in chat.meta and reads_only(chat)

    return find("single", fits)


def reads_only(chat: Chat) -> bool:
    return replay(chat)[1] == replay(replace(chat, turns=()))[1]


def test_a_mended_mistake_is_forgiven_and_an_extra_call_is_not() -> None:
    chat = simple()
    right, final = gold(chat)
    call = calling_turns(chat)[0].tool_calls[0]
    broken = write_calls([ToolCall(call.name, {"no_such_argument": 1})], "json")
    assert one(chat, broken, right, final).correct
    assert not one(chat, broken, final).correct
    assert not one(chat, right, right, final).correct


def test_a_tool_that_is_not_on_offer_is_not_run() -> None:
    chat = simple()
    hidden = replace(chat, tools=())
    row = one(hidden, *gold(chat))
    assert not row.correct and "unknown tool" in row.generated


def test_the_state_tells_whether_calls_were_made() -> None:
    """A call that changes the world leaves another state when it is left out."""
    changing = [chat for chat in CHATS if not reads_only(chat)]
    assert len(changing) >= 10
    result = run(changing, lambda _: iter(["Done."] * 9))
    assert not any(row.scores["state"] or row.scores["calls"] for row in result.rows)


def test_a_guess_where_the_user_should_be_asked_fails() -> None:
    chat = find("clarify", lambda chat: len(calling_turns(chat)) == 1)
    question, right, final = gold(chat)
    assert one(chat, question, right, final).correct
    assert not one(chat, right, final, final).correct


@pytest.mark.parametrize("kind", ["refuse", "irrelevance"])
def test_any_call_fails_where_none_is_expected(kind: str) -> None:
    chat = find(kind, lambda chat: not calling_turns(chat))
    name = chat.tools[0]["function"]["name"]
    assert one(chat, "No, I won't.").correct
    unreadable = one(chat, '{"tool": "x", "arguments": {')
    assert not unreadable.correct and unreadable.problems
    failed = one(chat, json.dumps({"tool": name, "arguments": {"unknown": 1}}), "Done.")
    assert failed.scores["state"] and not failed.correct and len(failed.generated_calls) == 1


def test_numbers_that_no_tool_can_compute_end_one_chat_and_not_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = simple()

    def overflow(world: World, **arguments: Any) -> None:
        raise OverflowError("int too large to convert to float")

    for tool in chat.tools:
        name = tool["function"]["name"]
        monkeypatch.setitem(TOOLS, name, replace(TOOLS[name], run=overflow))
    monkeypatch.setattr(module, "replay", lambda _: ([], {}))
    row = one(chat, *gold(chat))
    assert not row.correct and "int too large to convert to float" in row.generated


def test_the_step_limit() -> None:
    chat = simple()
    right, final = gold(chat)
    row = run([chat], lambda _: iter([right] * 99), max_steps=5).rows[0]
    assert not row.correct and row.scores["in_time"] is False and len(row.generated_calls) == 5
    assert one(chat, right, final, max_steps=2).correct


def test_order_within_and_between_turns() -> None:
    a, b, c = (ToolCall(name, {}) for name in "abc")
    expected = [Made(0, 1, a, False), Made(0, 1, b, False), Made(0, 3, c, False)]

    def made(*calls: ToolCall, user_turn: int = 0) -> list[Made]:
        return [Made(user_turn, step, call, False) for step, call in enumerate(calls)]

    assert as_expected(expected, made(a, b, c)) and as_expected(expected, made(b, a, c))
    assert not as_expected(expected, made(a, c, b)) and not as_expected(expected, made(a, b))
    assert not as_expected(expected, made(a, b, c, user_turn=1))
    assert as_expected([], []) and not as_expected([], made(a))
    there, back = (ToolCall("straight_distance", {"origin": x, "destination": y}) for x, y in ("ab", "ba"))
    assert as_expected(made(there), made(back)) and not as_expected(made(there, a), made(back))
    assert not as_expected([], [Made(0, 0, a, True)])
    assert as_expected(expected, [Made(0, 0, b, True), *made(a, b, c)])
    assert not as_expected(expected, [*made(a, b, c), Made(1, 9, b, True)])
    failing = [Made(0, 1, a, True)]
    assert as_expected(failing, failing) and not as_expected(failing, [])


def test_a_chat_without_a_world_is_refused() -> None:
    chat = Chat((Turn("user", "Hi"), Turn("assistant", "Hello")), where="chats.jsonl:3")
    with pytest.raises(DataError, match=r"chats\.jsonl:3: no simulated world"):
        evaluate_executed(Conversations([], gold), Conversations([], gold), [chat], call_format="json")


def test_a_real_tiny_model(tiny_model: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    renderer = Renderer.of(tokenizer, "json")
    decoder = TorchDecoder(model, tokenizer, renderer.end_token_ids, max_new_tokens=6, batch_size=4, progress=False)
    result = evaluate_executed(decoder, renderer, CHATS[:3], call_format="json")
    assert [row.where for row in result.rows] == [chat.where for chat in CHATS[:3]]
    assert all(row.new_tokens > 0 for row in result.rows)
