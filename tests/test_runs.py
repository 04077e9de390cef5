"""What a run folder is held against."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import RunError
from toolkit.recipe.schema import Recipe
from toolkit.runs import RunFolder, check_same, command_line


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"data": {"sources": [{"source": "x.jsonl"}, {"source": "y.jsonl"}]}} | sections)


def test_what_differs_is_told_as_a_recipe_says_it() -> None:
    mine = recipe(
        train={"max_steps": 3, "bf16": False, "fp16": True},
        lora={"target_modules": ["q_proj", "v_proj"]},
        data={"sources": [{"source": "x.jsonl"}, {"source": "y.jsonl", "limit": 5, "columns": {"messages": "m"}}]},
    )
    with pytest.raises(RunError) as error:
        check_same(mine, "mine.toml", recipe(), RunFolder(Path("runs/mine")))
    told = [str(problem) for problem in error.value.problems]
    run = "but runs/mine was trained"
    assert f'mine.toml: lora.target_modules = ["q_proj", "v_proj"], {run} with "all-linear"' in told
    assert f"mine.toml: train.fp16 = true, {run} with false" in told
    assert f"mine.toml: data.sources.1.limit = 5, {run} without it" in told
    assert f'mine.toml: data.sources.1.columns.messages = "m", {run} without it' in told
    assert told[-1].endswith("its own recipe: toolkit run runs/mine/recipe.toml --resume runs/mine")
    with pytest.raises(RunError) as error:
        check_same(recipe(), "mine.toml", mine, RunFolder(Path("runs/mine")))
    assert any(f"data.sources.1.limit is not set, {run} with 5" in str(one) for one in error.value.problems)
    check_same(recipe(), "mine.toml", recipe(), RunFolder(Path("runs/mine")))


def test_other_sources_are_told_whole() -> None:
    fewer = recipe(data={"sources": [{"source": "x.jsonl"}]})
    with pytest.raises(RunError) as error:
        check_same(fewer, "mine.toml", recipe(), RunFolder(Path("runs/mine")))
    first = str(error.value.problems[0])
    assert first.startswith('mine.toml: data.sources = [{ source = "x.jsonl"') and "None" not in first


@pytest.mark.parametrize(
    ("program", "started"), [("/venv/bin/toolkit", "toolkit"), ("/x/toolkit/__main__.py", "python -m toolkit")]
)
def test_the_command_line_can_be_pasted(monkeypatch: pytest.MonkeyPatch, program: str, started: str) -> None:
    words = ["run", "my data/x.toml", "--out", "runs/a b", "--set", 'train.optim="adamw_torch"', "--set", "a=it's"]
    monkeypatch.setattr("sys.argv", [program, *words])
    assert shlex.split(command_line()) == [*started.split(), *words]
    monkeypatch.setattr("sys.argv", [program])
    assert command_line() == started
