"""Token budgets follow the memory formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.errors import EngineError
from toolkit.planning.architecture import KNOWN
from toolkit.planning.budget import STEP, USABLE, check_packing, token_budget
from toolkit.planning.memory import training_memory
from toolkit.planning.plan import setup_of
from toolkit.recipe.schema import Recipe, TrainSection

GIB = 2**30
RECIPE = Recipe()
SETUP = setup_of(RECIPE, KNOWN["Qwen/Qwen3-1.7B"], "peft", "bf16", cuda=True)
UPDATE = {"longest": 2048, "update": 16 * 2048, "trained": 0.114}


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


def test_only_the_plain_engine_packs() -> None:
    packing = Recipe(train=TrainSection(micro_batch="auto"))
    check_packing(packing, "peft")
    check_packing(RECIPE, "unsloth")
    with pytest.raises(EngineError, match="micro_batch"):
        check_packing(packing, "unsloth")
