"""What every registered engine answers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.engines.test_choices import CPU, H200, T4, every, none
from toolkit.engines import ENGINES, Engine
from toolkit.engines.base import FILLED
from toolkit.engines.choice import choose_engine
from toolkit.errors import EngineError
from toolkit.hardware import Gpu, Hardware
from toolkit.models.families import KNOWN
from toolkit.planning.kernel_time import Rates, training
from toolkit.planning.memory import training_memory
from toolkit.planning.setup import setup_of
from toolkit.recipe.schema import Recipe, TrainSection

SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
EACH = pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))


def recipe(**train: Any) -> Recipe:
    return Recipe(train=TrainSection(**train))


def fitting(engine: Engine) -> Recipe:
    """A recipe that an engine takes."""
    return recipe(engine=engine.name, micro_batch="auto" if engine.packs_only else "fixed")


def test_the_recipes_engines_are_those_that_are_registered() -> None:
    assert set(get_args(TrainSection.model_fields["engine"].annotation)) == {"auto", *ENGINES}
    assert [engine.name for engine in ENGINES.values()] == list(ENGINES)


@EACH
def test_a_recipe_that_it_takes_is_planned(engine: Engine) -> None:
    asked = fitting(engine)
    assert engine.can_run(asked, H200, every) == []
    assert choose_engine(asked, H200, every).value == engine.name
    setup = setup_of(asked, SHAPE, engine.name, "bf16", cuda=True)
    assert setup.engine is engine
    kept = engine.layer_activations(setup)
    assert engine.backward_transient(setup) > 0
    assert kept < engine.layer_activations(replace(setup, shape=replace(SHAPE, intermediate_size=10_000)))
    peak = training_memory(setup, 1, 2048, 200).total
    assert peak < training_memory(setup, 1, 4096, 400).total
    assert peak < training_memory(replace(setup, checkpointing="off"), 1, 2048, 200).total
    rates = Rates(4e14, 1e14, 4e12)
    one, two = (training(setup, rates, tokens, 900, 0.1 * tokens) for tokens in (20_000, 40_000))
    assert 0 < one.between < two.between and one.total < two.total
    host, again = training(setup, rates, 10, 10, 1), training(setup.recomputing(0), rates, 10, 10, 1)
    assert host.host > again.host, "what recomputes launches more"


@EACH
def test_what_it_lacks_is_the_same_for_a_choice_and_for_whoever_asks(engine: Engine) -> None:
    old = replace(CPU, gpu=Gpu("an old card", 16 << 30, (3, 5)))
    for hardware, has in ((CPU, every), (old, every), (H200, none), (H200, every), (T4, every)):
        reasons = engine.can_run(fitting(engine), hardware, has)
        if not reasons:
            assert choose_engine(fitting(engine), hardware, has).value == engine.name
            continue
        with pytest.raises(EngineError) as caught:
            choose_engine(fitting(engine), hardware, has)
        assert [problem.message for problem in caught.value.problems] == [str(reason) for reason in reasons]
        assert all(reason.keys and reason.message for reason in reasons)
    assert (engine.gpu == "needed") == any(reason.needs for reason in engine.lacks(CPU, every))


@EACH
def test_what_auto_takes_says_why_it_takes_no_better(engine: Engine) -> None:
    if not engine.automatic:
        return
    for hardware in (CPU, H200):
        for reason in engine.lacks(hardware, none):
            assert reason.why


@EACH
def test_filling_is_what_the_planner_counts(engine: Engine) -> None:
    setup = setup_of(fitting(engine), SHAPE, engine.name, "bf16", cuda=True)
    for tokens in (1, 100, 5_000, 33_000):
        filled = setup.filled_up(tokens)
        assert filled % FILLED == 0 and tokens <= filled < tokens + 2 * 1024
        assert replace(setup, filled=7).filled_up(tokens) == -(-tokens // 7) * 7


def test_compiled_layers_want_packed_chats() -> None:
    assert not list(ENGINES["compiled"].refuses(recipe(micro_batch=4096)))
    with pytest.raises(EngineError, match=r"train.engine: .compiled. needs packed chats; wanted micro_batch"):
        choose_engine(recipe(engine="compiled"), H200, every)


def test_cards_without_float8_are_told() -> None:
    """Before anything is loaded, and by a plan too."""
    asked = recipe(engine="compiled", micro_batch="auto", products="float8")
    here = Hardware(Gpu("NVIDIA A100", 40 << 30, (8, 0)), "a CPU", 8, False, 32 << 30)
    with pytest.raises(EngineError, match=r'A100 has 8\.0; --set train.products="fused"'):
        choose_engine(asked, here)
    with pytest.raises(EngineError, match="there is no GPU"):
        choose_engine(asked, replace(here, gpu=None))
    choose_engine(asked, replace(here, gpu=Gpu("NVIDIA L4", 22 << 30, (8, 9))))


def test_offloaded_inputs_are_planned_where_the_engine_offloads_them() -> None:
    """`auto` may come to an engine that recomputes from inputs that stay on the card."""
    asked = recipe(gradient_checkpointing="unsloth")
    ways = {name: setup_of(asked, SHAPE, name, "bf16", cuda=True).checkpointing for name in ENGINES}
    assert ways == {"peft": "on", "compiled": "on", "unsloth": "offloaded"}


def test_asking_an_engine_imports_nothing_heavy() -> None:
    code = """
import sys
from toolkit.engines import ENGINES
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe
for engine in ENGINES.values():
    engine.can_run(Recipe(), Hardware(None, "", 1, False, 1))
print([name for name in ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
