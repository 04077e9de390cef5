"""On the real Qwen3 tokenizer, and on a real data set where TOOLKIT_TEST_DATA names one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from tests.real import load_once
from toolkit.data.render import Renderer
from toolkit.data.sources import load_chats
from toolkit.data.table import build
from toolkit.recipe.schema import DataSection, EvalSection, Recipe, SourceSection

DATA = os.environ.get("TOOLKIT_TEST_DATA", "")
BUILTIN = SourceSection(source="builtin:tools", size=120)


def sources() -> list[SourceSection]:
    return [BUILTIN, SourceSection(source=DATA, limit=300)] if DATA else [BUILTIN]


def test_rows_prompts_and_masks_on_real_chats(qwen3_tokenizer: Path) -> None:
    tokenizer = load_once(qwen3_tokenizer)
    renderer, split = Renderer.of(tokenizer), Renderer.of(tokenizer, thinking="split")
    for chat in load_chats(sources()):
        given = renderer.messages(chat)
        stock = tokenizer.apply_chat_template(given.messages, tools=given.tools, tokenize=True)["input_ids"]
        (row,) = renderer.rows(chat)
        encoded = renderer.encode(row)
        assert encoded.input_ids.tolist() == stock
        answers = [index for index, turn in enumerate(chat.turns) if turn.role == "assistant"]
        begins = np.flatnonzero(np.diff(encoded.trained.astype(int), prepend=0) == 1)
        assert len(begins) == len(answers)
        for index, begin, one in itertools.islice(zip(answers, begins, split.rows(chat), strict=True), 3):
            prompt = tokenizer.apply_chat_template(
                renderer.messages(chat, index).messages, tools=given.tools, add_generation_prompt=True, tokenize=True
            )["input_ids"]
            assert stock[: len(prompt)] == prompt and begin == len(prompt)
            tokens = split.encode(one)
            assert tokens.input_ids[-1] == renderer.markup.end_id and tokens.trained[-1]


def test_tables_of_built_in_chats(qwen3_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    recipe = Recipe(data=DataSection(sources=[BUILTIN], num_proc=1), eval=EvalSection(holdout=20))
    train, held = build(recipe, qwen3_tokenizer, progress=False), build(recipe, qwen3_tokenizer, "eval", progress=False)
    assert (train.n_chats, held.n_chats) == (120, 20)
    assert (train.trained > 0).all() and train.meta["dropped_rows"] == 0
