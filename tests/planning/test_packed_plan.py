"""A plan of packed micro-batches is the trainer's own: its budget, what fits, how many pieces, what is recomputed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.engines import ENGINES
from toolkit.engines.setup import Setup
from toolkit.hardware import Gpu, Hardware, detect
from toolkit.models.families import KNOWN
from toolkit.planning.budget import STEP, budget_of
from toolkit.planning.cards import GIB, Card, cpu_card
from toolkit.planning.cost import Work, predict
from toolkit.planning.kernel_time import Rates
from toolkit.planning.lengths import Lengths, from_table
from toolkit.planning.micro_batches import cut, fullest_share, mean_pieces
from toolkit.planning.plan import make_plan
from toolkit.planning.steps import Updates
from toolkit.recipe.schema import Recipe, TrainSection

TOKENS = st.lists(st.integers(16, 2048), min_size=1, max_size=60)
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def table(tokens: list[int], rows_per_chat: int = 1) -> Any:
    """What a token table says of itself, a tenth of it trained."""
    lengths = np.array(tokens * rows_per_chat, dtype=np.int64)
    return SimpleNamespace(n_chats=len(tokens), n_rows=len(lengths), lengths=lengths, trained=lengths // 10)


@QUICK
@given(
    tokens=TOKENS,
    rows_per_chat=st.integers(1, 3),
    gib=st.floats(3, 150),
    engine=st.sampled_from(["peft", "unsloth", "compiled"]),
    micro_batch=st.one_of(st.just("auto"), st.integers(64, 40_000)),
    checkpointing=st.sampled_from([True, False, "auto"]),
)
def test_the_plan_is_what_the_trainer_plans(
    tokens: list[int], rows_per_chat: int, gib: float, engine: str, micro_batch: int | str, checkpointing: bool | str
) -> None:
    recipe = Recipe(
        train=TrainSection(engine=engine, micro_batch=micro_batch, gradient_checkpointing=checkpointing)  # type: ignore[arg-type]
    )
    card = Card("some", "some card", gib, (9, 0), 100, 10, 500)
    data = table(tokens, rows_per_chat)
    plan = make_plan(recipe, card, from_table(data))
    here = Hardware(Gpu("some card", card.memory, (9, 0)), "", 1, True, 1)
    assert plan.budget == budget_of(recipe, engine, plan.precision.value, here, data)
    assert plan.budget is not None and plan.pieces is not None
    if micro_batch == "auto" and "may not fit" not in plan.budget.reason:
        assert plan.memory.total <= card.memory
    if not plan.fits:
        assert plan.budget.tokens in (max(tokens), STEP) or micro_batch != "auto", "the least, or what was asked for"
    assert 1 <= plan.pieces <= 16 * rows_per_chat
    assert plan.time is not None and plan.time.padding == pytest.approx(1)


def test_on_a_cpu_the_plan_looks_at_the_memory_that_the_trainer_looks_at() -> None:
    recipe = Recipe(train=TrainSection(engine="peft", micro_batch="auto", gradient_checkpointing="auto"))
    data = table([500, 1500, 2048])
    plan = make_plan(recipe, cpu_card(2, 4 * GIB, "CPU"), from_table(data))  # so much is free just now
    assert plan.budget == budget_of(recipe, "peft", plan.precision.value, replace(detect(), gpu=None), data)
    assert plan.fits == (plan.memory.total <= 4 * GIB)
    assert psutil.virtual_memory().total >= 4 * GIB


@QUICK
@given(tokens=TOKENS, rows=st.integers(1, 40), budget=st.integers(16, 50_000))
def test_pieces_are_counted_as_they_are_cut(tokens: list[int], rows: int, budget: int) -> None:
    found = mean_pieces(np.array(tokens), rows, budget)
    assert 1 <= found <= rows
    if max(tokens) * rows <= budget:
        assert found == 1
    if 2 * min(tokens) > budget:
        assert found == rows, "no two rows go together"
    if len(set(tokens)) == 1:
        assert found == len(cut([tokens[0]] * rows, budget))


def test_more_tokens_than_a_budget_holds_are_often_one_piece_more() -> None:
    """A mean update of 1.94 budgets is cut in two or, about as often, in three."""
    lengths = np.linspace(36, 1764, 2000).astype(np.int64)
    assert 2.2 < mean_pieces(lengths, 16, 7424) < 2.8


def test_time_follows_the_share_of_layers_that_recompute() -> None:
    lengths = Lengths(1600, np.array([500, 1500]), 1.0, 0.1, "test", True)
    shape = KNOWN["Qwen/Qwen3-1.7B"]

    def update(share: float, fast: float) -> float:
        setup = Setup(shape, ENGINES["unsloth"], "16-bit", 17_432_576, "on", packed=True)
        setup = setup.recomputing(round(share * shape.num_hidden_layers))
        work = Work(setup, lengths, Updates(1600, 100, 100, 0), 4, 4, pieces=2.0)
        return predict(work, Rates(4e13 * fast, 1e13 * fast, 1e12 * fast)).update

    for fast in (1.0, 1e6):  # the card sets the pace, or the host does
        none, half, whole = (update(share, fast) for share in (0.0, 0.5, 1.0))
        assert half == pytest.approx((none + whole) / 2)
        assert none < half


def test_attention_costs_unpadded_rows_what_it_costs_equal_ones() -> None:
    rows = Lengths(2, np.array([100, 300]), 1.0, 0.1, "test", True)
    assert rows.attention_width == 250  # (100 x 100 + 300 x 300) / 400
    assert Lengths(2, np.array([700, 700]), 1.0, 0.1, "test", True).attention_width == 700


@QUICK
@given(tokens=TOKENS, rows=st.integers(1, 40), ranks=st.integers(1, 4))
def test_hardly_any_update_has_more_than_the_fullest(tokens: list[int], rows: int, ranks: int) -> None:
    lengths = np.array(tokens)
    found = fullest_share(lengths, rows, ranks)
    assert lengths.mean() * rows / ranks <= found + 1
    assert found <= max(tokens) * -(-rows // ranks)
    if len(set(tokens)) == 1:
        assert found == tokens[0] * -(-rows // ranks)


def test_the_fullest_of_a_runs_updates() -> None:
    """Of 2,943 updates of 16 chats, as the chapter's, none has more, and one has nearly as much."""
    random = np.random.default_rng(1)
    lengths = np.linspace(36, 1764, 15_694).astype(np.int64)
    most = random.choice(lengths, (2943, 16)).sum(1).max()
    assert most <= fullest_share(lengths, 16) <= 1.1 * most
    assert fullest_share(lengths, 16) < 0.8 * 16 * lengths.max()
