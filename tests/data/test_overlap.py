"""A run says which held-out chats it trains on, and what of `eval.holdout` is not meant so."""

from __future__ import annotations

from collections.abc import Callable
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

Said = Callable[[Recipe], tuple[str, Tables]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """What a run says of a recipe's data before it trains, and their token tables."""
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)

    def described(recipe: Recipe) -> tuple[str, Tables]:
        tables = Tables(build(recipe, folder, "train"), build(recipe, folder, "eval"))
        describe_data(new_console(width=400), recipe, tables, updates_of(recipe, tables.train.n_chats))
        return capsys.readouterr().out, tables

    return described


@pytest.mark.parametrize("thinking", ["template", "split"])
def test_held_out_chats_that_are_trained_on_are_said(
    tmp_path: Path, thinking: Literal["template", "split"], said: Said
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [weather_row(city) for city in ("A", "B", "C")])

    def told(*cities: str) -> str:
        held = write_jsonl(tmp_path / "held.jsonl", [weather_row(city) for city in cities])
        recipe = Recipe(
            data=DataSection(sources=[SourceSection(source=str(train))], num_proc=1, thinking=thinking),
            eval=EvalSection(sources=[SourceSection(source=str(held))]),
        )
        printed, tables = said(recipe)
        assert tables.evaluation is not None
        line = trained_on_too(tables.train, tables.evaluation)
        assert ("note " in printed) == bool(line) and line in printed
        return line

    assert told("D", "E") == ""  # as long as those of training, and others
    assert told("D", "B").startswith("1 of 2 held-out chats is trained on too")
    assert told("D", "B").endswith("held.jsonl:2")
    assert told("C", "A", "far away").startswith("2 of 3 held-out chats are trained on too")


def test_a_number_to_hold_out_beside_sources_is_said_not_to_be_used(tmp_path: Path, said: Said) -> None:
    train, held = (write_jsonl(tmp_path / f"{name}.jsonl", [weather_row(name)]) for name in ("train", "held"))

    def told(holdout: float) -> str:
        recipe = Recipe(
            data=DataSection(sources=[SourceSection(source=str(train))], num_proc=1),
            eval=EvalSection(sources=[SourceSection(source=str(held))], holdout=holdout),
        )
        return said(recipe)[0]

    assert "note       eval.holdout = 50 is not used: [[eval.sources]] say which" in told(50)
    assert "note" not in told(EvalSection().holdout)
    assert "note" not in told(0)


def test_more_held_out_than_trained_on_is_said(tmp_path: Path, said: Said) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row(f"City {i}") for i in range(30)])

    def told(holdout: int) -> str:
        recipe = Recipe(
            data=DataSection(sources=[SourceSection(source=str(path))], num_proc=1), eval=EvalSection(holdout=holdout)
        )
        return said(recipe)[0]

    assert "note       eval.holdout = 20 holds out 20 chats and leaves 10 to train on: set a lower number" in told(20)
    assert "as eval.holdout = 10, or" in told(20)
    assert "note" not in told(15)
