"""Guards, early stopping and the metrics file, on planted logs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import TrainingError
from toolkit.recipe.schema import EvalSection, Recipe, TrainSection
from toolkit.training.callbacks import EarlyStopping, Guard, MetricsWriter
from toolkit.training.memory import HeapTrimmer


def step(update: int) -> Any:
    return SimpleNamespace(global_step=update, epoch=update / 10, max_steps=10)


def test_fp16_updates_skipped_again_and_again_stop_the_run() -> None:
    guard = Guard(Recipe(train=TrainSection(fp16=True, max_skipped_steps=3)))
    scaler = SimpleNamespace(optimizer_step_was_skipped=False)
    guard.trainer = SimpleNamespace(accelerator=scaler)
    args = SimpleNamespace(fp16=True)
    for update, skipped in enumerate([True, True, False, True, True]):
        scaler.optimizer_step_was_skipped = skipped
        guard.on_step_end(args, step(update), None)
    assert guard.skipped == 4
    scaler.optimizer_step_was_skipped = True
    with pytest.raises(TrainingError, match=r"3 fp16 updates in a row.*train.bf16=true"):
        guard.on_step_end(args, step(6), None)


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_stop_the_run(name: str, value: float) -> None:
    guard = Guard(Recipe())
    with pytest.raises(TrainingError, match=f"update 4: {name} is"):
        guard.on_log(SimpleNamespace(fp16=False), step(4), None, {name: value})
    guard.on_log(SimpleNamespace(fp16=False), step(4), None, {name: 1.0})


def test_an_overflowing_gradient_is_normal_with_loss_scaling() -> None:
    Guard(Recipe()).on_log(SimpleNamespace(fp16=True), step(1), None, {"loss": 2.0, "grad_norm": float("inf")})


def stopping(patience: int, folder: Path, threshold: float = 0.0, **settings: Any) -> EarlyStopping:
    section = EvalSection(early_stopping_patience=patience, early_stopping_threshold=threshold, **settings)
    callback = EarlyStopping(Recipe(eval=section), folder)
    callback.trainer = SimpleNamespace(model=SimpleNamespace(named_parameters=list))
    return callback


@pytest.mark.parametrize(
    ("losses", "patience", "stops_after"),
    [
        ([3.0, 2.0, 2.1, 2.2], 2, 4),
        ([3.0, 2.0, 2.1, 1.9, 2.0, 2.0], 2, 6),
        ([3.0, 2.0, 1.5, 1.2], 1, None),
        ([1.0, 2.0, 3.0, 4.0], 0, None),
    ],
)
def test_early_stopping(tmp_path: Path, losses: list[float], patience: int, stops_after: int | None) -> None:
    callback = stopping(patience, tmp_path)
    stopped_after = None
    for i, loss in enumerate(losses, start=1):
        control = SimpleNamespace(should_training_stop=False)
        callback.on_evaluate(None, step(i), control, {"eval_loss": loss})
        if control.should_training_stop and stopped_after is None:
            stopped_after = i
    assert stopped_after == stops_after
    if patience:
        assert callback.best.value == min(losses)


def test_early_stopping_replays_its_judgements(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"update": i, "eval_loss": loss} for i, loss in enumerate([3.0, 2.0, 2.5])]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"update": 3, "eval_lo')
    callback = stopping(3, tmp_path)
    callback.replay(metrics)
    assert (callback.best.value, callback.best.update, callback.best.worse) == (2.0, 1, 1)


def test_the_best_by_calls_has_the_most_right_answers_and_of_as_many_the_lower_loss(tmp_path: Path) -> None:
    callback = stopping(3, tmp_path, best="calls")
    kept = []
    seen = [(0.1, 3.0), (0.5, 2.0), (0.4, 1.0), (None, 0.5), (0.5, 1.9), (0.5, 1.95), (0.3, 0.1), (0.5, 1.9)]
    for update, (calls, loss) in enumerate(seen, 1):
        metrics = {"eval_loss": loss} | ({} if calls is None else {"eval_calls": calls})
        control = SimpleNamespace(should_training_stop=False)
        callback.on_evaluate(None, step(update), control, metrics)
        kept.append(callback.best.update)
    assert kept == [1, 2, 2, 2, 5, 5, 5, 5]
    assert control.should_training_stop and callback.what == "more right answers"
    again = stopping(3, tmp_path, best="calls")
    rows = [
        {"update": update, "eval_loss": loss} | ({} if calls is None else {"eval_calls": calls})
        for update, (calls, loss) in enumerate(seen, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again.replay(tmp_path / "metrics.jsonl")
    assert again.best == callback.best and (again.best.update, again.best.worse) == (5, 3)


def test_metrics_rows(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.trainer = SimpleNamespace(logged_tokens=0)
    writer.on_train_begin(None, step(0), None)
    writer.on_log(None, step(0), None, {"eval_loss": 3.0, "eval_calls": 0.25, "epoch": 0.0})
    writer.trainer.logged_tokens = 500
    writer.on_log(None, step(1), None, {"loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-4})
    writer.on_log(None, step(1), None, {"train_runtime": 1.0, "train_loss": 2.5})
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {"update": 0, "eval_loss": 3.0, "eval_calls": 0.25}
    assert (second["update"], second["loss"], second["real_tokens"]) == (1, 2.5, 500)
    assert second["tokens_per_second"] > 0 and second["memory"] > 0


def test_memory_is_given_back_only_when_there_is_more_than_an_update_needs() -> None:
    """Resident bytes after each update, and the updates after which the heap is trimmed."""
    resident, trimmed = 0, list[int]()
    trimmer = HeapTrimmer(trim=lambda: trimmed.append(update), resident=lambda: resident)
    # 100, then a longer update's 120; fragments up to 126; the next begins trimmed and needs 130, so 160 is little
    for update, resident in enumerate([100, 120, 124, 126, 130, 150, 160, 163, 90, 120]):  # noqa: B007
        trimmer.on_step_end(None, step(update), None)
    assert trimmed == [3, 7]
    assert trimmer.needed == 130


def test_a_system_without_malloc_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    trimmer = HeapTrimmer(resident=lambda: 1)
    assert trimmer.trim is None
    trimmer.on_step_end(None, step(1), None)
