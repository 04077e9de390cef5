"""Logs that are made an update late say what logs made at once say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_recipe
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.runs import RunFolder
from toolkit.training.run import run
from toolkit.training.trainer import Trainer

LOGGED = ("update", "epoch", "loss", "grad_norm", "learning_rate", "real_tokens", "eval_loss")


def short(folder: Path, base: Path) -> Path:
    """10 updates, evaluated after the 4th and 8th, saved after the 3rd, 6th and 9th."""
    return write_recipe(
        folder,
        base,
        40,
        lora={"lora_dropout": 0.0},
        train={"num_train_epochs": 2, "save_steps": 3, "micro_batch": "auto", "gradient_accumulation_steps": 2},
        eval={"eval_steps": 4, "early_stopping_patience": 0},
    )


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    return short(tmp_path, tiny_model)


Trained = tuple[RunFolder, list[tuple[int, int]], Any]


def train(recipe: Path, out: Path, patch: pytest.MonkeyPatch, *overrides: str, ahead: bool, until: int = 0) -> Trained:
    """The run's folder, (updates made, the last row's) as each update ended, and the trainer."""
    seen: list[tuple[int, int]] = []
    kept: list[Any] = []

    def build(*args: Any, **kwargs: Any) -> Any:
        from transformers import TrainerCallback

        made: Any = Trainer(*args, **kwargs)
        made.ahead = ahead
        kept.append(made)

        class Seen(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                rows = [row["update"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
                seen.append((state.global_step, rows[-1] if rows else 0))
                made.ahead = made.ahead and state.global_step != until

        made.add_callback(Seen())
        return made

    with patch.context() as patched:
        patched.setattr("toolkit.training.session.Trainer", build)
        folder = run(load(recipe, overrides), out)
    return folder, seen, kept[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, cache_root: Path) -> list[Trained]:
    """The run that logs each update at once, and the one that does so late."""
    place = tmp_path_factory.mktemp("both")
    recipe = short(place, tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(cache_root))
        return [train(recipe, place / f"{ahead}", patch, ahead=ahead) for ahead in (False, True)]


@pytest.mark.slow
def test_late_logs_say_the_same(both: list[Trained]) -> None:
    say_the_same(both)


def test_late_logs_of_every_third_update_say_the_same(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = "train.logging_steps=3"
    say_the_same([train(recipe, tmp_path / f"{ahead}", monkeypatch, every, ahead=ahead) for ahead in (False, True)])


def say_the_same(runs: list[Trained]) -> None:
    found = []
    for folder, _, trainer in runs:
        rows = [{key: row[key] for key in LOGGED if key in row} for row in read_jsonl(folder.metrics)]
        states = [
            json.loads(path.read_text())["log_history"] for path in folder.checkpoints.glob("*/trainer_state.json")
        ]
        found.append((rows, sorted(states, key=len), trainer.state.log_history[-1]["train_loss"]))
    assert found[0] == found[1]
    assert sum("loss" in row for row in found[0][0]) >= 3


@pytest.mark.slow
def test_a_log_waits_for_the_next_update(both: list[Trained]) -> None:
    (_, at_once, _), (_, late, _) = both
    assert [update - row for update, row in at_once] == [1] * 10
    # nothing is held back where a checkpoint or an evaluation wants it: after updates 3, 4, 6, 8 and 9
    assert [update - row for update, row in late] == [1, 2, 2, 1, 1, 2, 1, 2, 1, 1]


@pytest.mark.slow
def test_a_trainer_that_no_longer_runs_ahead_logs_what_waited_and_what_is_new(
    recipe: Path, tmp_path: Path, both: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bench does at the end of a turn."""
    rows = []
    for folder, _, _ in (both[0], train(recipe, tmp_path / "until", monkeypatch, ahead=True, until=2)):
        rows.append([(row["update"], row["loss"]) for row in read_jsonl(folder.metrics) if "loss" in row])
    assert [update for update, _ in rows[0]] == list(range(1, 11))
    assert rows[0] == rows[1]


def test_what_was_made_before_a_failure_is_logged(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def build(*args: Any, **kwargs: Any) -> Any:
        made: Any = Trainer(*args, **kwargs)
        made.ahead = True
        step = made.training_step

        def fails(*args: Any, **kwargs: Any) -> Any:
            if made.state.global_step == 2:
                raise RuntimeError("the card is gone")
            return step(*args, **kwargs)

        made.training_step = fails
        return made

    monkeypatch.setattr("toolkit.training.session.Trainer", build)
    with pytest.raises(RuntimeError, match="the card is gone"):
        run(load(recipe), tmp_path / "run")
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["update"] for row in rows if "loss" in row] == [1, 2]
