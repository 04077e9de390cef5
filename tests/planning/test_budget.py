"""Token budgets follow the memory formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.engines import ENGINES
from toolkit.engines.compiled import SHARE
from toolkit.hardware import Gpu
from toolkit.models.families import KNOWN
from toolkit.planning.budget import (
    STEP,
    USABLE,
    Budget,
    budget_for,
    least_recomputed,
    token_budget,
)
from toolkit.planning.lengths import Lengths
from toolkit.planning.memory import training_memory
from toolkit.planning.setup import pace_of, setup_of
from toolkit.recipe.schema import Recipe, TrainSection

GIB = 2**30
RECIPE = Recipe()
SETUP = setup_of(RECIPE, KNOWN["Qwen/Qwen3-1.7B"], "peft", "bf16", cuda=True)
UPDATE: dict[str, Any] = {"longest": 2048, "update": 16 * 2048, "trained": 0.114}


def test_a_large_card_takes_a_whole_update() -> None:
    budget = token_budget(SETUP, 140 * GIB, **UPDATE)
    assert budget.tokens == 16 * 2048
    assert "a whole update" in budget.reason


@pytest.mark.parametrize("gib", [8, 14.56, 24])
def test_a_small_card_is_filled_and_no_more(gib: float) -> None:
    setup = replace(SETUP, checkpointing="off")
    memory = int(gib * GIB)
    tokens = token_budget(setup, memory, **UPDATE).tokens
    peak = [training_memory(setup, 1, count, round(0.114 * count)).total for count in (tokens, tokens + STEP)]
    if tokens > UPDATE["longest"]:
        assert peak[0] <= USABLE * memory < peak[1]
    else:
        assert peak[1] > USABLE * memory


def test_the_longest_row_is_never_cut() -> None:
    budget = token_budget(SETUP, 2 * GIB, **UPDATE)
    assert budget.tokens == 2048
    assert "may not fit" in budget.reason


def test_an_update_has_no_more_chats_than_there_are() -> None:
    recipe = Recipe(
        train=TrainSection(per_device_train_batch_size=32, gradient_accumulation_steps=1, micro_batch="auto")
    )
    many, three = (Lengths(chats, np.full(3, 900), 1.0, 0.1, "counted", True) for chats in (300, 3))
    of_many, of_three = (budget_for(recipe, SETUP, 140 * GIB, lengths) for lengths in (many, three))
    assert of_many is not None and of_three is not None
    assert of_many.tokens > 32 * 900 and of_three.tokens < 4 * 900


EXPECTED = 16 * 940.0


def test_a_large_card_recomputes_nothing() -> None:
    found = least_recomputed(SETUP, 140 * GIB, expected=EXPECTED, **UPDATE)
    assert found.checkpointed == 0 and found.tokens >= EXPECTED
    assert found.checkpointing.startswith("off")


def test_the_smallest_card_recomputes_nearly_everywhere() -> None:
    """All but the last layer, whose activations are needed again at once."""
    found = least_recomputed(SETUP, 6 * GIB, expected=EXPECTED, **UPDATE)
    assert found.checkpointed == 27
    found = least_recomputed(SETUP, 2 * GIB, expected=EXPECTED, **UPDATE)
    assert found.checkpointed == 28 and found.checkpointing.startswith("on: ")


@pytest.mark.parametrize("engine", ["peft", "compiled", "unsloth"])
def test_more_memory_never_costs_more(engine: str) -> None:
    """By the formula that chooses: launches and recomputation both fall, or one is traded for the other."""
    setup = replace(SETUP, engine=ENGINES[engine], packed=True)
    costs = []
    for gib in (8, 12, 16, 24, 32, 48, 80, 140):
        memory = gib * GIB
        found = least_recomputed(setup, memory, expected=EXPECTED, **UPDATE)
        count = found.checkpointed or 0
        costs.append((2 + count / 28) * (EXPECTED + -(-EXPECTED // found.tokens) * setup.engine.launch_tokens))
        some = replace(setup, checkpointing="on" if count else "off", checkpointed=count)
        peak = training_memory(some, 1, found.tokens, round(0.114 * found.tokens)).total
        assert peak <= USABLE * memory or found.tokens == UPDATE["longest"]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]


def test_tokens_asked_for_are_kept_and_only_layers_chosen() -> None:
    asked = Budget(12_000, "train.micro_batch")
    found = least_recomputed(SETUP, 32 * GIB, expected=EXPECTED, asked=asked, **UPDATE)
    assert found.tokens == 12_000 and 0 < (found.checkpointed or 0) < 28
    assert "of 28 layers" in found.checkpointing


def test_memory_of_some_layers_lies_between_none_and_all() -> None:
    none = training_memory(replace(SETUP, checkpointing="off"), 1, 8192, 900).peak
    peaks = [
        training_memory(replace(SETUP, checkpointing="on", checkpointed=count), 1, 8192, 900).peak
        for count in range(1, 29)
    ]
    assert none > peaks[0]
    assert peaks[:-1] == sorted(peaks[:-1], reverse=True)
    assert peaks[-1] == training_memory(replace(SETUP, checkpointing="on"), 1, 8192, 900).peak


def test_recorded_pieces_cost_less_than_recomputation() -> None:
    """On a small card, compiled: more pieces that are replayed, rather than fewer whose layers recompute."""
    recipe = Recipe(train=TrainSection(engine="compiled", micro_batch="auto", gradient_checkpointing="auto"))
    setup = setup_of(recipe, KNOWN["Qwen/Qwen3-1.7B"], "compiled", "bf16", cuda=True)
    assert setup.recorded
    recorded = least_recomputed(setup, round(14.56 * GIB), expected=EXPECTED, **UPDATE)
    assert recorded.checkpointed == 0 and recorded.tokens < EXPECTED / 2
    run = least_recomputed(replace(setup, recorded=False), round(14.56 * GIB), expected=EXPECTED, **UPDATE)
    assert (run.checkpointed or 0) > 0 and run.tokens > recorded.tokens


def test_filling_counts_within_memory() -> None:
    setup = replace(SETUP, engine=ENGINES["compiled"], packed=True, checkpointing="off")
    memory = 24 * GIB
    exact = token_budget(replace(setup, filled=1), memory, **UPDATE).tokens
    coarse = token_budget(replace(setup, filled=1024), memory, **UPDATE).tokens
    assert exact - 1024 < coarse <= exact
    assert -(-coarse // 1024) * 1024 <= exact + STEP


@pytest.mark.parametrize(
    ("tokens", "how", "expected"),
    [
        (32_768, {"dynamic": True, "recorded": True}, 512),
        (8_192, {"dynamic": True, "recorded": True}, 256),
        (6_144, {"dynamic": True, "recorded": True}, 128),
        (300, {"dynamic": True, "recorded": True}, 64),
        (8_192, {"dynamic": True, "recorded": False}, 64),
        (8_192, {"dynamic": False, "recorded": True}, 1024),
    ],
)
def test_what_micro_batches_are_filled_up_to(tokens: int, how: dict[str, bool], expected: int) -> None:
    assert ENGINES["compiled"].multiple(tokens, cuda=True, **how) == expected
    if how["dynamic"] and tokens > 64 * SHARE:
        assert expected <= tokens / SHARE, "little beside the tokens"


@pytest.mark.parametrize(
    ("train", "engine", "expected"),
    [
        ({}, "compiled", (True, True, None)),
        ({"compile": "static"}, "compiled", (False, True, None)),
        ({"cuda_graphs": False}, "compiled", (True, False, None)),
        ({"pad_to_multiple_of": 256}, "compiled", (True, True, 256)),
        ({}, "unsloth", (True, False, None)),
    ],
)
def test_what_a_recipe_says_of_filling(train: dict[str, object], engine: str, expected: tuple[object, ...]) -> None:
    recipe = Recipe(train=TrainSection(micro_batch="auto", **train))  # type: ignore[arg-type]
    setup = setup_of(recipe, KNOWN["Qwen/Qwen3-1.7B"], engine, "bf16", cuda=True)
    assert (setup.dynamic, setup.recorded, setup.filled) == expected


@pytest.mark.parametrize(
    ("name", "memory", "capability", "pace"),
    [
        ("NVIDIA H200", 140 * GIB, (9, 0), 1.0),
        ("Tesla T4", 15 * GIB, (7, 5), 22 / 695),
        ("T4 16 GB", round(14.56 * GIB), (7, 5), 22 / 695),
        ("a card of next year", 15 * GIB, (13, 0), 1.0),
    ],
)
def test_the_pace_is_that_of_the_cards_products(
    name: str, memory: int, capability: tuple[int, int], pace: float
) -> None:
    assert pace_of(Gpu(name, memory, capability)) == pytest.approx(pace)


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_a_slow_card_takes_more_pieces_rather_than_recompute(engine: str) -> None:
    """It is busy with a piece for longer than the host needs to launch the next."""
    setup = replace(SETUP, engine=ENGINES[engine], packed=True)
    fast = least_recomputed(setup, round(14.56 * GIB), expected=EXPECTED, **UPDATE)
    slow = least_recomputed(replace(setup, pace=22 / 695), round(14.56 * GIB), expected=EXPECTED, **UPDATE)
    assert (fast.checkpointed or 0) > 0
    assert slow.checkpointed == 0 and slow.tokens < fast.tokens
