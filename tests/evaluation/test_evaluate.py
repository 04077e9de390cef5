"""evaluate() from chats to scored rows, with a model that says what the test plants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import ADD
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.calls import write_calls
from toolkit.data.render import Renderer
from toolkit.errors import DataError
from toolkit.evaluation.evaluate import as_text, base_columns, evaluate, prompted_turns
from toolkit.inference.decode import Done, Generated, TorchDecoder

CALL = ToolCall("add", {"a": 1, "b": 2})


def chat(number: int) -> Chat:
    turns = (
        Turn("system", "Be kind."),
        Turn("user", f"Add 1 and 2, please ({number})."),
        Turn("assistant", "", (CALL,)),
        Turn("tool", '{"sum": 3}', name="add"),
        Turn("assistant", "It is 3."),
    )
    return Chat(turns, (ADD,), "single", source="made", where=f"made:{number}", meta={"split": "phrasing"})


@pytest.fixture
def loaded(tiny_model: Path) -> tuple[Any, Any, Renderer]:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    return model, tokenizer, Renderer.of(tokenizer, "json")


class Planted:
    """A decoder that answers by words of the prompt, and keeps the prompts."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.prompts: list[str] = []
        self.settings: dict[str, Any] = {}

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        self.prompts += prompts
        answers = [next(text for key, text in self.answers.items() if key in prompt) for prompt in prompts]
        return [Generated(text, 5, True) for text in answers]


def decoder(model: Any, tokenizer: Any, renderer: Renderer) -> TorchDecoder:
    return TorchDecoder(model, tokenizer, renderer.end_token_ids, max_new_tokens=6, batch_size=4, progress=False)


def test_rows_hold_what_was_asked_expected_and_said(loaded: tuple[Any, Any, Renderer]) -> None:
    right = write_calls([CALL], "json")
    says = Planted({"(0)": right, "(1)": "I can't help with that."})
    result = evaluate(says, loaded[2], [chat(0), chat(1)], call_format="json")
    assert [row.correct for row in result.rows] == [True, False]
    first, second = result.rows
    assert (first.where, first.turn, first.kind, first.split, first.source) == (
        "made:0",
        2,
        "single",
        "phrasing",
        "made",
    )
    assert first.user == "Add 1 and 2, please (0)."
    assert first.expected == first.generated == right
    assert first.expected_calls == first.generated_calls == [{"name": "add", "arguments": {"a": 1, "b": 2}}]
    assert second.scores["over_refusal"] is True
    assert says.prompts == [loaded[2].prompt(chat(0), 2), loaded[2].prompt(chat(1), 2)]


def test_all_turns_are_asked_from_the_chats_own_history(loaded: tuple[Any, Any, Renderer]) -> None:
    says = Planted({'"sum": 3': "It is 3.", "(0)": "no idea"})
    result = evaluate(says, loaded[2], [chat(0)], turns="all", call_format="json")
    assert [(row.turn, row.kind, row.correct) for row in result.rows] == [(2, "single", False), (4, "answer", True)]


def test_a_real_tiny_model_with_its_adapter_off_and_on(loaded: tuple[Any, Any, Renderer]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model, tokenizer, renderer = loaded
    chats = [chat(number) for number in range(3)]
    plain = evaluate(decoder(model, tokenizer, renderer), renderer, chats, call_format="json")
    assert len(plain.rows) == 3 and all(row.new_tokens == 6 or row.stopped for row in plain.rows)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=5.0)
    with base_columns(adapted):
        base = evaluate(decoder(adapted, tokenizer, renderer), renderer, chats, call_format="json")
    assert base.rows == plain.rows
    assert evaluate(decoder(adapted, tokenizer, renderer), renderer, chats, call_format="json").rows != plain.rows


def test_which_turns_are_asked() -> None:
    greeting = Chat((Turn("assistant", "Hello!"), *chat(0).turns[1:]))
    assert prompted_turns(greeting, "first") == [2]
    assert prompted_turns(greeting, "all") == [2, 4]
    bad = replace(greeting, turns=(*greeting.turns[:2], replace(greeting.turns[2], trained=False), *greeting.turns[3:]))
    assert prompted_turns(bad, "all") == [4], "an answer that is not to be learnt is no measure either"
    assert prompted_turns(Chat((Turn("user", "Hi"),)), "all") == []


def test_nothing_to_evaluate(loaded: tuple[Any, Any, Renderer]) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(Planted({}), loaded[2], [Chat((Turn("user", "Hi"),))], call_format="json")


def test_expected_text_is_written_in_the_call_format() -> None:
    assert as_text("Ok.", [CALL], "json") == 'Ok.\n{"tool": "add", "arguments": {"a": 1, "b": 2}}'
    assert as_text("", [CALL], "native") == '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    assert '"method": "tools/call"' in as_text("", [CALL], "jsonrpc")
