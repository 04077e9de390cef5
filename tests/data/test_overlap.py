"""A run says which held-out chats it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from tests.data.toys import QWEN_LIKE, save_tokenizer, weather_row, write_jsonl
from toolkit.data.overlap import trained_on_too
from toolkit.data.table import build
from toolkit.planning.steps import updates_of
from toolkit.recipe.schema import DataSection, EvalSection, Recipe, SourceSection
from toolkit.terminal import new_console
from toolkit.training.prepared import Tables
from toolkit.training.record import describe_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("thinking", ["template", "split"])
def test_held_out_chats_that_are_trained_on_are_said(
    tmp_path: Path, thinking: Literal["template", "split"], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    train = write_jsonl(tmp_path / "train.jsonl", [weather_row(city) for city in ("A", "B", "C")])

    def told(*cities: str) -> str:
        held = write_jsonl(tmp_path / "held.jsonl", [weather_row(city) for city in cities])
        recipe = Recipe(
            data=DataSection(sources=[SourceSection(source=str(train))], num_proc=1, thinking=thinking),
            eval=EvalSection(sources=[SourceSection(source=str(held))]),
        )
        tables = Tables(build(recipe, folder, "train"), build(recipe, folder, "eval"))
        describe_data(new_console(width=400), recipe, tables, updates_of(recipe, 3))
        printed = capsys.readouterr().out
        assert tables.evaluation is not None
        line = trained_on_too(tables.train, tables.evaluation)
        assert ("note " in printed) == bool(line) and line in printed
        return line

    assert told("D", "E") == ""  # as long as those of training, and others
    assert told("D", "B").startswith("1 of 2 held-out chats is trained on too")
    assert told("D", "B").endswith("held.jsonl:2")
    assert told("C", "A", "far away").startswith("2 of 3 held-out chats are trained on too")
