"""What a turn says is what is trained of it: marks inside a text are text, and turns can be left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.data.test_render import FORMATS, NAMES, named, own, trained_texts
from tests.data.toys import CHATML, QWEN_LIKE, tokenizer, weather_chat
from toolkit.chats import Chat, ToolCall, Turn, split_thought
from toolkit.data.render import Renderer
from toolkit.errors import DataError

THINKERS = [name for name in NAMES if "Qwen3" in name]
USER = Turn("user", "How does it end its thoughts?")
MENTION = "It writes </think> and then answers."
# Cuts texts at the mark and knows no field for the thought.
CUTTING = QWEN_LIKE.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (MENTION, ("", MENTION)),
        ("<think>\nwhy\n</think>\n\nSo.", ("\nwhy\n", "\n\nSo.")),
        ("<think>a</think>b </think> c", ("a", "b </think> c")),
        ("Say <think>x</think>.", ("", "Say <think>x</think>.")),
        ("<think> never ends", ("", "<think> never ends")),
    ],
)
def test_only_a_leading_block_is_a_thought(content: str, parts: tuple[str, str]) -> None:
    assert split_thought(content) == parts


@pytest.mark.parametrize("name", THINKERS)
@pytest.mark.parametrize("thinking", ["template", "split"])
def test_an_answer_that_mentions_the_end_of_thinking_is_trained_whole(name: str, thinking: Any) -> None:
    """Qwen3's own template cuts a text at its last </think>, in the last turn and in earlier ones."""
    renderer = Renderer.of(own(name), *FORMATS[name], thinking=thinking)
    chat = Chat((USER, Turn("assistant", MENTION), USER, Turn("assistant", f"Again: {MENTION}")), where="made:1")
    first, last = trained_texts(renderer, chat)
    opening = "<think>\n\n</think>\n\n" if thinking == "template" else ""
    assert first == f"{MENTION}<|im_end|>"
    assert last == f"{opening}Again: {MENTION}<|im_end|>"


@pytest.mark.parametrize("name", THINKERS)
def test_a_thought_and_a_mention_stay_apart(name: str) -> None:
    thought = "It uses <think> marks."
    chat = Chat((USER, Turn("assistant", f"<think>\n{thought}\n</think>\n\n{MENTION}")), where="made:1")
    assert trained_texts(named(name), chat) == [f"<think>\n{thought}\n</think>\n\n{MENTION}<|im_end|>"]


def test_calls_written_into_the_text_keep_the_mark_in_an_argument() -> None:
    call = ToolCall("get_weather", {"city": "</think>"})
    chat = replace(
        weather_chat(), turns=(USER, Turn("assistant", "", (call,)), Turn("tool", "1"), Turn("assistant", "1"))
    )
    for name in THINKERS:
        assert '"city": "</think>"}' in trained_texts(named(name), chat)[0]


def test_a_template_that_cuts_texts_is_refused_by_name() -> None:
    chat = Chat((USER, Turn("assistant", MENTION)), where="made:7")
    for thinking in ("template", "split"):
        renderer = Renderer.of(tokenizer(CUTTING), thinking=thinking)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"made:7: turn 2: the chat template cuts its text at </think>"):
            renderer.rows(chat)
    assert trained_texts(Renderer.of(tokenizer(CHATML), "json"), chat) == [f"{MENTION}<|im_end|>"]


@pytest.mark.parametrize("name", NAMES)
def test_turns_that_are_not_trained_are_read_and_not_learnt(name: str) -> None:
    whole = named(name)
    turns = list(weather_chat().turns)
    turns[4] = replace(turns[4], trained=False)
    chat = replace(weather_chat(), turns=tuple(turns))
    kept = [text for text in trained_texts(whole, weather_chat()) if "It rains" not in text]
    assert len(kept) == 2 and trained_texts(whole, chat) == kept
    (row,) = whole.rows(chat)
    (trained,) = whole.rows(weather_chat())
    assert whole.encode(row).input_ids.tolist() == whole.encode(trained).input_ids.tolist()
    assert whole.encode(row).roles["assistant"] == whole.encode(trained).roles["assistant"]
    if "strict" not in name:
        split = Renderer.of(own(name), *FORMATS[name], thinking="split")
        assert [row.turn for row in split.rows(chat)] == [2, 6]


def test_nothing_to_train_is_refused() -> None:
    chat = Chat((USER, Turn("assistant", "a", trained=False)), where="made:3")
    with pytest.raises(DataError, match="made:3: no assistant turn is to be trained"):
        named("chatml json").rows(chat)


def test_text_after_a_call_is_a_turn_after_it() -> None:
    turns = (USER, Turn("assistant", "", (ToolCall("add", {"a": 1, "b": 2}),)), Turn("assistant", "I asked."))
    chat = replace(weather_chat(), turns=turns)
    call, said = trained_texts(named("qwen-like native"), chat)
    assert '"name": "add"' in call and "I asked." not in call
    assert said == "<think>\n\n</think>\n\nI asked.<|im_end|>"
