"""Which engine and precision are taken, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toolkit.engines.choice import choose_engine
from toolkit.engines.precision import choose_precision
from toolkit.engines.requirements import check_hardware
from toolkit.errors import EngineError
from toolkit.hardware import FreeCores, Gpu, Hardware, free_cores, usable_cores
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe, TrainSection

CPU = Hardware(gpu=None, cpu="some CPU", cores=2, cpu_bf16=True, memory=8 << 30)
T4 = replace(CPU, gpu=Gpu("Tesla T4", 15 << 30, (7, 5)))
H200 = replace(CPU, gpu=Gpu("NVIDIA H200", 140 << 30, (9, 0)))


def every(package: str) -> bool:
    return True


def none(package: str) -> bool:
    return False


def recipe(**train: Any) -> Recipe:
    return Recipe(train=TrainSection(**train))


@pytest.mark.parametrize(
    ("hardware", "installed", "wanted", "reason"),
    [
        (CPU, True, "peft", "no CUDA GPU"),
        (H200, False, "peft", "not installed"),
        (H200, True, "unsloth", "fused kernels on NVIDIA H200"),
    ],
)
def test_auto_engine(hardware: Hardware, installed: bool, wanted: str, reason: str) -> None:
    choice = choose_engine(Recipe(), hardware, lambda package: installed)
    assert choice.value == wanted
    assert reason in choice.reason


def test_bias_and_dora_have_no_fused_path() -> None:
    for lora in (LoraSection(bias="all"), LoraSection(use_dora=True)):
        assert choose_engine(Recipe(lora=lora), H200, every).value == "peft"


def test_unsloth_asked_for_where_it_can_not_run() -> None:
    with pytest.raises(EngineError, match="needs a CUDA GPU"):
        choose_engine(recipe(engine="unsloth"), CPU, every)
    with pytest.raises(EngineError, match=r"pip install -e '.\[gpu\]'"):
        choose_engine(recipe(engine="unsloth"), H200, none)


def test_a_gpu_that_unsloth_is_too_new_for() -> None:
    """One rule for a run, a plan and doctor."""
    p100 = replace(CPU, gpu=Gpu("Tesla P100", 16 << 30, (6, 0)))
    why = "Unsloth needs compute capability 7.0, Tesla P100 has 6.0"
    for has in (every, none):
        assert str(choose_engine(Recipe(), p100, has)) == f"peft ({why})"
        with pytest.raises(EngineError, match=f"train.engine: {why}; --set train.engine=peft goes without"):
            choose_engine(recipe(engine="unsloth"), p100, has)
    assert choose_engine(Recipe(), replace(CPU, gpu=Gpu("V100", 16 << 30, (7, 0))), every).value == "unsloth"


@pytest.mark.parametrize(
    ("hardware", "train", "wanted"),
    [
        (H200, {}, "bf16"),
        (T4, {}, "fp16"),
        (CPU, {}, "bf16"),
        (replace(CPU, cpu_bf16=False), {}, "fp32"),
        (H200, {"fp16": True, "bf16": False}, "fp16"),
        (H200, {"bf16": False}, "fp32"),
    ],
)
def test_precision(hardware: Hardware, train: dict[str, Any], wanted: str) -> None:
    assert choose_precision(recipe(**train), hardware).value == wanted


def test_a_t4_has_no_bfloat16() -> None:
    with pytest.raises(EngineError, match=r"Tesla T4 \(compute capability 7.5\) has no bfloat16.*tools-t4.toml"):
        choose_precision(recipe(bf16=True), T4)


def test_all_gpu_only_settings_are_named_at_once() -> None:
    asked = Recipe(
        model=ModelSection(attn_implementation="flash_attention_2"),
        train=TrainSection(optim="paged_adamw_8bit", gradient_checkpointing="unsloth", fp16=True),
    )
    with pytest.raises(EngineError) as caught:
        check_hardware(asked, CPU)
    assert len(caught.value.problems) == 4
    check_hardware(asked, T4)


def test_free_cores_are_some_of_the_usable_ones() -> None:
    assert 1 <= free_cores() <= usable_cores()


@pytest.mark.parametrize(
    ("busy", "own", "wanted"), [(0.1, 0.1, 4), (4.0, 4.0, 4), (2.1, 0.1, 2), (3.9, 1.0, 1), (4, 0, 1)]
)
def test_cores_that_others_hold_are_not_free(
    monkeypatch: pytest.MonkeyPatch, busy: float, own: float, wanted: int
) -> None:
    readings = iter([(0.0, 100.0, 50.0), (0.5, 100.0, 50.0), (2.0, 100.0 + 2 * busy, 50.0 + 2 * own)])
    monkeypatch.setattr(FreeCores, "_read", staticmethod(lambda: next(readings)))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("toolkit.hardware.usable_cores", lambda: 4)
    cores = FreeCores()
    assert cores.look() is None
    assert cores.look() == wanted


def test_a_run_goes_on_with_the_engine_that_it_began_with() -> None:
    from toolkit.engines import choose

    engine, _ = choose(recipe(micro_batch="auto"), CPU, "compiled")
    assert (engine.value, engine.reason, engine.note) == ("compiled", "the run began with it", "")
    assert choose(Recipe(train=TrainSection(engine="peft")), CPU, "compiled")[0].value == "peft"
    assert choose(Recipe(), CPU)[0].value == "peft"
    with pytest.raises(EngineError, match="needs a CUDA GPU"):
        choose(Recipe(), CPU, "unsloth")
