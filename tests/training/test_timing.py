"""A time budget: what it counts, what it fits, and that its number makes the same run again. By no real clock."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny import write_recipe
from toolkit.errors import RecipeError
from toolkit.planning.decode_time import decoding_seconds
from toolkit.planning.steps import EARLY, TIMED, Updates, learning_rate, updates_of
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe
from toolkit.records import read_jsonl
from toolkit.reports.log import Facts
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training import timing
from toolkit.training.prepared import Tables
from toolkit.training.record import describe_data
from toolkit.training.run import run
from toolkit.training.timing import Fit, TimeBudget


class Clock:
    """A clock that stands still until it is told to go on; with `tick`, so much at each look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.time, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.time += self.tick
        return self.time


def recipe_of(**train: Any) -> Recipe:
    values = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "max_minutes": 1.0,
        "num_train_epochs": 1,
    }
    return Recipe.model_validate({"train": values | train, "eval": {"eval_steps": 100}})


def fit(
    recipe: Recipe,
    seconds: list[float],
    tokens: list[int],
    *,
    chats: int = 100,
    evaluation: float | None = None,
    decoding: float = 0.0,
    between: float = 0.0,
) -> tuple[list[Fit], Any, TimeBudget]:
    """Updates of these seconds and real tokens, `between` seconds apart; 10 tokens an update in the mean of the run."""
    clock, found = Clock(), list[Fit]()
    budget = TimeBudget(recipe, updates_of(recipe, chats), 10, found.append, decoding=decoding, clock=clock)
    budget.trainer = SimpleNamespace(real_tokens=0, eval_dataset=None if evaluation is None else [1], updates=None)
    state = SimpleNamespace(global_step=0, max_steps=chats)
    budget.on_train_begin(None, state, None)
    if evaluation is not None:
        clock.time += evaluation
        budget.on_evaluate(None, state, None)
    for spent, count in zip(seconds, tokens, strict=True):
        budget.trainer.real_tokens += count
        budget.on_step_begin(None, state, None)
        clock.time += spent
        budget.on_optimizer_step(None, state, None)
        state.global_step += 1
        budget.on_step_end(None, state, None)
        clock.time += between
    return found, state, budget


def test_what_is_left_is_filled() -> None:
    """60 s less 8 updates of 1 s leave room for 52 more."""
    found, state, budget = fit(recipe_of(), [1.0] * TIMED, [10] * TIMED)
    (one,) = found
    assert (one.updates.total, one.updates.planned, one.updates.warmup, one.seconds) == (60, 100, 8, 1.0)
    assert state.max_steps == 60 and budget.trainer.updates == one.updates
    assert one.line(1.0) == "60 updates fit into 1 minute: 1.00 s an update"
    assert one.line(2.5) == "60 updates fit into 2.5 minutes: 1.00 s an update"


def test_seconds_go_by_tokens() -> None:
    """Timed updates of twice the usual tokens took 2 s each: the others will take one."""
    found, _, _ = fit(recipe_of(), [2.0] * TIMED, [20] * TIMED)
    assert (found[0].seconds, found[0].updates.total) == (1.0, TIMED + 60 - 16)


def test_one_that_waits_counts_against_the_time_and_not_against_the_pace() -> None:
    """The first warms up, and another waits for a compilation."""
    found, _, _ = fit(recipe_of(), [9.0, 1.0, 1.0, 6.0, 1.0, 1.0, 1.0, 1.0], [10] * TIMED)
    assert (found[0].seconds, found[0].updates.total) == (1.0, TIMED + 60 - 21)


def test_time_between_updates_counts() -> None:
    found, _, _ = fit(recipe_of(), [1.0] * TIMED, [10] * TIMED, between=0.5)
    assert found[0].updates.total == TIMED + int(60 - 8 - 7 * 0.5)


def test_evaluations_count() -> None:
    """One before, one at the end: 5 s each, and 3 s of decoding with the one at the end."""
    found, _, _ = fit(recipe_of(), [1.0] * TIMED, [10] * TIMED, evaluation=5.0)
    assert found[0].updates.total == 50
    found, _, _ = fit(recipe_of(), [1.0] * TIMED, [10] * TIMED, evaluation=5.0, decoding=3.0)
    assert found[0].updates.total == 47


@pytest.mark.parametrize("every, total", [(100, 50), (20, 40), (4, 28)])
def test_as_many_evaluations_as_there_will_be(every: int, total: int) -> None:
    """Of 5 s each, one of them before: 1 at 50; 20 and 40 (41 would want a third); 12, 16, 20, 24 and 28."""
    recipe = recipe_of()
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"eval_steps": every})})
    found, _, _ = fit(recipe, [1.0] * TIMED, [10] * TIMED, evaluation=5.0)
    assert found[0].updates.total == total


def test_an_evaluation_an_epoch() -> None:
    recipe = recipe_of(num_train_epochs=10)
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"eval_steps": "epoch"})})
    found, _, _ = fit(recipe, [1.0] * TIMED, [10] * TIMED, chats=10, evaluation=5.0)
    # epochs end at 10, 20, 30 and 40, which is where the minute ends: 5 + 40 + 4 x 5 is too much by 5
    assert found[0].updates.total == 35


def test_all_of_them_may_fit() -> None:
    found, state, _ = fit(recipe_of(), [0.1] * TIMED, [10] * TIMED)
    assert (found[0].updates.total, found[0].updates.planned, state.max_steps) == (100, None, 100)
    assert found[0].updates == updates_of(recipe_of(), 100), "the schedule is the one without a budget"
    assert found[0].line(1.0) == "all 100 updates fit into 1 minute: 0.10 s an update"


@pytest.mark.parametrize(
    "seconds, total, timed, line",
    [
        (70.0, 2, 2, "2 updates take longer than 1 minute: 70.00 s an update"),
        (30.0, 2, 2, "2 updates fit into 1 minute: 30.00 s an update"),
        (20.0, 3, 3, "3 updates fit into 1 minute: 20.00 s an update"),
        (9.0, 6, 3, "6 updates fit into 1 minute: 9.00 s an update"),
        (7.5, 9, 8, "9 updates take longer than 1 minute: 7.50 s an update"),
        (6.0, 10, 8, "10 updates fit into 1 minute: 6.00 s an update"),
    ],
)
@pytest.mark.parametrize("chats", [9, 100])
def test_slow_cores_make_fewer_updates(seconds: float, total: int, timed: int, line: str, chats: int) -> None:
    """It is fitted as soon as it is clear that 8 don't fit, and the number says when that was."""
    found, state, budget = fit(recipe_of(), [seconds] * timed, [10] * timed, chats=chats)
    (one,) = found
    total = min(total, chats)
    assert (one.updates.total, state.max_steps, budget.trainer.updates) == (total, total, one.updates)
    if total < chats:
        alone = chats == 100 and total == timed
        assert one.line(1.0) == line + "; that is warm-up alone, which teaches next to nothing" * alone
        assert one.updates.timed == timed == budget.trainer.updates.timed
        again = updates_of(recipe_of(fitted_steps=total), chats)
        assert again == one.updates


def test_a_first_update_that_compiles_ends_nothing() -> None:
    found, _, _ = fit(recipe_of(), [30.0, 12.0, *[1.0] * 6], [10] * TIMED)
    assert found[0].updates.total == TIMED + 60 - 48


def test_few_updates_are_fitted_too_but_not_two() -> None:
    found, state, _ = fit(recipe_of(), [9.0] * 3, [10] * 3, chats=7)
    assert found[0].updates.total == state.max_steps == 6
    found, state, _ = fit(recipe_of(), [90.0] * 2, [10] * 2, chats=2)
    assert not found and state.max_steps == 2


def test_nothing_is_timed_where_it_was_fitted_before() -> None:
    recipe = recipe_of(fitted_steps=30)
    found, _, budget = fit(recipe, [9.0] * TIMED, [10] * TIMED)
    assert not found and (budget.updates.total, budget.updates.planned) == (30, 100)


@pytest.mark.parametrize(
    "total, timed, warmup", [(4, EARLY, 3), (6, EARLY, 3), (9, TIMED, 8), (50, TIMED, 8), (200, TIMED, 20)]
)
def test_rates_of_a_fitted_run(total: int, timed: int, warmup: int) -> None:
    """The first updates rise as if nothing was fitted; then the schedule is that of so many updates, from its highest
    rate on where its warm-up is over: however few are left, they are not wasted."""
    train, whole = recipe_of().train, updates_of(recipe_of(), 400)
    short = updates_of(recipe_of(fitted_steps=total), 400)
    assert short == Updates(chats=400, per_epoch=400, total=total, warmup=warmup, planned=400)
    assert (short.timed, short.caution) == (timed, "")
    alone = Updates(chats=400, per_epoch=400, total=total, warmup=warmup)
    rates = [learning_rate(train, short, update) for update in range(total)]
    assert rates[:timed] == [learning_rate(train, whole, update) for update in range(timed)]
    assert rates[timed:] == [learning_rate(train, alone, update) for update in range(timed, total)]
    assert rates[warmup] == max(rates) == train.learning_rate


def test_a_first_schedule_without_warm_up_is_fitted_to_one_without() -> None:
    for more in ({"warmup_ratio": 0.0}, {"warmup_ratio": 0.0, "lr_scheduler_type": "constant"}):
        updates = updates_of(recipe_of(fitted_steps=9, **more), 400)
        assert (updates.warmup, updates.timed) == (0, TIMED)
    few = updates_of(recipe_of(fitted_steps=20), 30)
    assert few.warmup == 3, "the rate was up after the 3 updates of the first schedule's warm-up"


@pytest.mark.parametrize("total", [5, 50, None])
def test_the_report_knows_how_long_the_rate_rose(total: int | None) -> None:
    recipe = recipe_of(fitted_steps=total)
    updates = updates_of(recipe, 400)
    rates = [learning_rate(recipe.train, updates, update) for update in range(updates.total)]
    rose = Facts.of(recipe, 400).warmup
    assert rates[rose] == max(rates) and rates[: rose + 1] == sorted(rates[: rose + 1])


@pytest.mark.parametrize(
    "generate, steps, every, seconds",
    [
        (0, "eval", 10, 0.0),
        (8, 0, 10, 0.0),
        (8, "eval", 10, 4.0),
        (8, 40, 10, 1.0),
        (8, 5, 10, 4.0),
        (8, 40, "epoch", 4.0),
    ],
)
def test_what_decoding_adds_to_an_evaluation(generate: int, steps: Any, every: Any, seconds: float) -> None:
    settings = {"generate": generate, "generate_steps": steps, "eval_steps": every}
    assert decoding_seconds(Recipe.model_validate({"eval": settings}), 4.0) == seconds


def test_a_fitted_number_wants_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nfitted_steps = 30\n")
    with pytest.raises(RecipeError, match=r"mine.toml:2: train.fitted_steps: .*max_minutes, which is not set"):
        load(path)


@pytest.mark.parametrize("value", ["0", "-3", '"long"'])
def test_minutes_are_a_number_above_0(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[train]\nmax_minutes = {value}\n")
    with pytest.raises(RecipeError, match=r"mine.toml:2: train.max_minutes: .*wanted a number above 0"):
        load(path)


# whole runs


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    """80 chats, 2 an update: 38 updates, of which a minute holds fewer by a clock that goes on at each look."""
    return write_recipe(
        tmp_path,
        tiny_model,
        80,
        lora={"lora_dropout": 0.0},
        train={
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "num_train_epochs": 1,
            "gradient_checkpointing": False,
            "max_minutes": 1.0,
            "save_steps": 5,
        },
        eval={"eval_steps": 100, "early_stopping_patience": 0},
    )


def rows(folder: RunFolder) -> list[tuple[float, float]]:
    return [(row["loss"], row["learning_rate"]) for row in read_jsonl(folder.metrics) if "loss" in row]


@pytest.mark.slow
def test_a_run_is_fitted_and_runs_again_and_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(tick=2.0)
    monkeypatch.setattr(timing, "now", clock)
    first = run(load(recipe), tmp_path / "first")
    said = capsys.readouterr().out
    kept = load(first.recipe).recipe
    total = kept.train.fitted_steps
    assert total is not None and TIMED < total < 25 and kept.train.max_minutes == 1.0
    assert "as many as fit into 1 min" in said and f"time       {total} updates fit into 1 minute: " in said
    updates = updates_of(kept, json.loads(first.environment.read_text())["data"]["train"]["chats"])
    assert updates.planned is not None and updates.total == total
    made = rows(first)
    assert [rate for _, rate in made] == [learning_rate(kept.train, updates, update) for update in range(total)]
    summary = json.loads(first.summary.read_text())
    assert summary["updates"] == summary["updates_planned"] == total
    evaluated = [row["update"] for row in read_jsonl(first.metrics) if "eval_loss" in row]
    assert evaluated == [0, total]
    assert "as many as fit into 1 min" in first.report.read_text()

    # again by its own recipe, whatever the clock says
    clock.tick = 100.0
    again = run(load(first.recipe), tmp_path / "again")
    assert rows(again) == made
    assert f"updates    {total} of 2 chats, as fitted to 1 min before" in capsys.readouterr().out

    # broken off after the fit, it goes on with the same number by the recipe that it was begun with
    shutil.rmtree(first.checkpoints / f"checkpoint-{total}")
    assert first.last_checkpoint() == first.checkpoints / "checkpoint-15"
    first.summary.unlink()
    assert rows(run(load(recipe), resume=first.path)) == made


def test_the_terminal_says_at_most(tiny_table: Tables) -> None:
    for train, said in (({}, "at most, as many as fit into 1.5 min"), ({"fitted_steps": 9}, "as fitted to 1.5 min")):
        file = io.StringIO()
        recipe = recipe_of(max_minutes=1.5, **train)
        describe_data(new_console(file=file, width=200), recipe, tiny_table, updates_of(recipe, 20))
        assert said in file.getvalue()


@pytest.fixture
def tiny_table() -> Tables:
    import numpy as np

    table: Any = SimpleNamespace(n_chats=20, lengths=np.array([10] * 20), trained=np.array([2] * 20))
    return Tables(table, None)
