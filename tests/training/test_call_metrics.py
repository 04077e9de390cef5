"""Tool calls measured in the course of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny import write_chats
from toolkit.errors import RecipeError
from toolkit.evaluation.results import Evaluation, Row
from toolkit.planning.steps import Updates
from toolkit.recipe import load
from toolkit.recipe.schema import EvalSection, Recipe
from toolkit.records import read_jsonl
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training import call_metrics as module
from toolkit.training.call_metrics import CallMeter
from toolkit.training.prepared import Prepared
from toolkit.training.run import run


def evaluation(right: int, wrong: int) -> Evaluation:
    scores = [True] * right + [False] * wrong
    rows = [
        Row(f"x:{i}", 1, "single", "", "x", "", "", "", [], [], [], {"correct": good, "exact": good})
        for i, good in enumerate(scores)
    ]
    return Evaluation(rows)


class Planted(CallMeter):
    """Measures what the test says, and keeps when it did."""

    def __init__(self, tmp_path: Path, answers: list[Evaluation], **settings: Any) -> None:
        recipe = Recipe.model_validate({"eval": {"generate": 4, **settings}})
        model = SimpleNamespace(modules=list)  # without adapters
        loaded: Any = SimpleNamespace(model=model)
        no_renderer: Any = None  # nothing is decoded
        no_tables: Any = None
        prepared = Prepared(recipe, loaded, no_tables, Updates(chats=8, per_epoch=8, total=8, warmup=0))
        super().__init__(prepared, no_renderer, RunFolder(tmp_path), new_console(quiet=True))
        self.answers = iter(answers)
        self.when: list[str] = []

    def _decode(self, when: str, progress: bool = True) -> Evaluation:
        self.when.append(when)
        return next(self.answers)


def test_measured_with_every_evaluation_and_never_twice(tmp_path: Path) -> None:
    meter = Planted(tmp_path, [evaluation(0, 4), evaluation(1, 3), evaluation(3, 1)])
    meter.before()
    assert meter.during(0) == {"eval_calls": 0.0, "eval_exact": 0.0}
    assert meter.during(5)["eval_calls"] == 0.25
    assert meter.during(10)["eval_calls"] == 0.75
    after = meter.after(10)
    assert after is not None and after.rates()["correct"].hits == 3
    assert meter.when == ["before training", "after update 5", "after update 10"]
    assert Evaluation.load(tmp_path / "evaluation" / "after.jsonl").rows == after.rows


def test_an_earlier_adapter_that_is_kept_is_measured_again(tmp_path: Path) -> None:
    meter = Planted(tmp_path, [evaluation(0, 4), evaluation(3, 1), evaluation(1, 3), evaluation(3, 1)])
    meter.before()
    for update in (0, 5, 10):
        meter.during(update)
    meter.after(5)
    assert meter.when[-1] == "after training"


ALL = [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("steps", "measured"), [(0, []), (1, ALL), (3, [0, 4, 8]), ("eval", ALL)])
def test_how_often(tmp_path: Path, steps: Any, measured: list[int]) -> None:
    meter = Planted(tmp_path, [evaluation(1, 3)] * 9, generate_steps=steps)
    meter.before()
    assert [update for update in ALL if meter.during(update)] == measured


@pytest.mark.parametrize("best", ["auto", "loss", "calls"])
def test_the_last_adapter_is_always_measured(tmp_path: Path, best: str) -> None:
    meter = Planted(tmp_path, [evaluation(1, 3)] * 9, generate_steps=5, best=best)
    meter.before()
    assert [update for update in ALL if meter.during(update)] == [0, 6, 8]


@pytest.mark.parametrize(
    ("settings", "by_calls"),
    [
        ({}, False),
        ({"generate": 8}, True),
        ({"generate": 8, "generate_steps": 100}, True),
        ({"generate": 8, "generate_steps": 0}, False),
        ({"generate": 8, "best": "loss"}, False),
    ],
)
def test_answers_choose_wherever_they_are_decoded_in_between(settings: dict[str, Any], by_calls: bool) -> None:
    assert EvalSection(**settings).by_calls is by_calls


def test_nothing_is_measured_unless_asked(tmp_path: Path) -> None:
    meter = Planted(tmp_path, [], generate=0)
    assert (meter.before(), meter.during(0), meter.after(4)) == (None, {}, None)


@pytest.mark.parametrize("setting", ["generate=0", "generate_steps=0", "early_stopping_patience=0"])
def test_the_best_by_calls_needs_calls_to_choose_by(tmp_path: Path, setting: str) -> None:
    lines = {"generate": "generate=8", "best": 'best="calls"'} | {setting.partition("=")[0]: setting}
    (tmp_path / "x.toml").write_text("[eval]\n" + "\n".join(lines.values()))
    with pytest.raises(RecipeError, match=f"eval.{setting.partition('=')[0]}.*eval.best"):
        load(tmp_path / "x.toml")


def test_a_run_logs_calls_beside_the_loss_and_keeps_the_best_by_them(
    tmp_path: Path, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chats(tmp_path / "chats.jsonl", 24)
    (tmp_path / "r.toml").write_text(f"""
[model]
name = "{tiny_model}"
dtype = "float32"
[[data.sources]]
source = "{tmp_path / "chats.jsonl"}"
[data]
call_format = "json"
[train]
bf16 = false
learning_rate = 5e-3
per_device_train_batch_size = 4
gradient_accumulation_steps = 1
max_steps = 4
max_length = 512
torch_threads = 1
[eval]
holdout = 4
eval_steps = 1
generate = 3
max_new_tokens = 4
best = "calls"
""")
    shares = iter([0.5, 1.0, 0.5, 0.5])  # after updates 1 to 4; a tiny model gets nothing right by itself
    measured = CallMeter.during

    def during(self: CallMeter, update: int) -> dict[str, float]:
        found = measured(self, update)
        assert found["eval_calls"] == 0.0
        return found | ({"eval_calls": next(shares)} if update else {})

    monkeypatch.setattr(module.CallMeter, "during", during)
    folder = run(load(tmp_path / "r.toml"), tmp_path / "run")
    logged = [(row["update"], row["eval_calls"]) for row in read_jsonl(folder.metrics) if "eval_loss" in row]
    assert logged == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 0.5), (4, 0.5)]
    assert json.loads(folder.summary.read_text())["adapter_of_update"] == 2
    assert {path.name for path in folder.evaluation.iterdir()} == {"before.jsonl", "after.jsonl"}
