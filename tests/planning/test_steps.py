"""Counts and rates as transformers makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from toolkit.planning.steps import learning_rate, updates_of
from toolkit.recipe.schema import Recipe


def recipe(**train: Any) -> Recipe:
    return Recipe.model_validate({"train": train})


def test_the_chapters_run() -> None:
    updates = updates_of(Recipe(), 15_694)
    assert (updates.per_epoch, updates.total, updates.warmup) == (981, 2_943, 295)
    assert updates.epochs == 3


@given(st.integers(1, 3000), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.3, 1, 2, 2.5]))
def test_updates_are_those_of_a_loop(chats: int, batch: int, accumulation: int, epochs: float) -> None:
    micro_batches = -(-chats // batch)
    per_epoch = -(-micro_batches // accumulation)
    settings = recipe(
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, num_train_epochs=epochs
    )
    updates = updates_of(settings, chats)
    assert updates.per_epoch == per_epoch
    assert epochs * per_epoch <= updates.total < epochs * per_epoch + 1


def test_max_steps_wins() -> None:
    assert updates_of(recipe(max_steps=30), 15_694).total == 30


@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "constant_with_warmup"])
def test_rates_are_those_of_transformers(kind: str, total: int) -> None:
    import torch
    from transformers import get_scheduler

    settings = recipe(max_steps=total, lr_scheduler_type=kind, warmup_ratio=0.0 if kind == "constant" else 0.13)
    updates = updates_of(settings, 1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.train.learning_rate)
    scheduler = get_scheduler(kind, optimizer, updates.warmup, total)
    for update in range(total):
        assert learning_rate(settings.train, updates, update) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("ratio", [0.1, 1.0])
@pytest.mark.parametrize("total", [1, 2, 9])
def test_no_run_is_warm_up_alone(total: int, ratio: float) -> None:
    settings = recipe(max_steps=total, warmup_ratio=ratio)
    rates = [learning_rate(settings.train, updates_of(settings, 1), update) for update in range(total)]
    assert max(rates) == settings.train.learning_rate and rates[-1] > 0


def test_the_counts_are_those_of_the_trainer(tmp_path: Path) -> None:
    """The number of updates that transformers' Trainer itself works out, for a last update that is not full."""
    import torch
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=3,
    )
    data = torch.utils.data.TensorDataset(torch.zeros(15_694, 1))
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=data)
    max_steps = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())[-1]
    steps = [value for value in [max_steps] if value is not None]
    assert steps == [updates_of(Recipe(), 15_694).total]
