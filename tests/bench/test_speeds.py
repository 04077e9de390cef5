"""What a bench leaves for `train.engine = "auto"`: only what its gates let through, and only of the card itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.command import record_speeds
from bench.variants import BY_NAME
from tests.bench.planted import plant, run
from toolkit.bench_results import Gate, Results
from toolkit.engines.measured import load, signature, store
from toolkit.models.families import KNOWN
from toolkit.recipe import load as load_recipe
from toolkit.recipe.schema import Recipe

SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
BF16 = "16-bit bf16"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def measured(*names: str, **values: Any) -> Results:
    header = {"card_rates": {"title": "H200 141 GB"}, "versions": {"torch": "2.13.0", "trl": "1.15"}}
    results = run(**(header | values))
    for name in names:
        plant(results, name, engine=BY_NAME[name].engine, trained=BY_NAME[name].trained)
    return results


def recipes(folder: Path, results: Results) -> dict[str, Recipe]:
    path = folder / "recipe.toml"
    path.write_text("")
    return {
        name: load_recipe(path, (f'train.engine="{BY_NAME[name].engine}"', *BY_NAME[name].overrides)).recipe
        for name in results.arms
    }


def test_each_arm_is_kept_with_its_settings(tmp_path: Path) -> None:
    results = measured("peft", "peft-nockpt-nodrop", "compiled-fused-autockpt", "unsloth-4bit", "full", "peft-logits")
    told = record_speeds(results, recipes(tmp_path, results), SHAPE)
    assert told == f"4 arms kept for train.engine = auto in {store()}"
    rows = {row.arm: row for row in load().on("NVIDIA H200", BF16)}
    assert set(rows) == {"peft", "peft-nockpt-nodrop", "compiled-fused-autockpt"}, "what the product trains as it is"
    assert [row.arm for row in load().on("H200 141 GB", "4-bit bf16")] == ["unsloth-4bit"]
    peft = rows["peft"]
    assert peft.tokens_per_second == pytest.approx(3000 / 3.3, rel=1e-3), "real tokens, not padding"
    assert (peft.date, peft.shape, peft.lengths) == ("2026-01-02 03:04:05", signature(SHAPE), "real")
    assert peft.versions["torch"] == "2.13.0"
    assert (peft.micro_batch, peft.gradient_checkpointing, peft.lora_dropout) == ("fixed", True, 0.05)
    bare = rows["peft-nockpt-nodrop"]
    assert (bare.gradient_checkpointing, bare.lora_dropout) == (False, 0.0)
    fused = rows["compiled-fused-autockpt"]
    assert (fused.engine, fused.micro_batch, fused.products) == ("compiled", "auto", "fused")
    assert fused.gradient_checkpointing == "auto"


def test_a_failed_gate_keeps_nothing(tmp_path: Path) -> None:
    results = measured("peft", "unsloth")
    results.gates = [Gate("peft", "losses agree", True, ""), Gate("unsloth", "losses agree", False, "")]
    assert record_speeds(results, recipes(tmp_path, results), SHAPE).endswith("gates of unsloth failed")
    assert not store().exists()


def test_an_imposed_card_is_not_this_one(tmp_path: Path) -> None:
    results = measured("peft", "unsloth", profile="t4")
    assert "profile t4 is imposed" in record_speeds(results, recipes(tmp_path, results), SHAPE)
    assert not store().exists()


def test_nothing_of_a_cpu_nor_of_arms_that_did_not_end(tmp_path: Path) -> None:
    results = measured("peft", hardware={"gpu": None, "cpu": "EPYC", "cores": 2, "memory": 1})
    assert record_speeds(results, recipes(tmp_path, results), SHAPE) == ""
    results = measured("peft")
    results.arms["peft"] = replace(results.arms["peft"], status="out of memory")
    assert record_speeds(results, recipes(tmp_path, results), SHAPE) == ""
    assert not store().exists()


def test_an_arm_with_settings_of_its_own_is_not_kept(tmp_path: Path) -> None:
    """They may be another library's version, which is not the one that a run would have."""
    results = measured("peft")
    name = "peft+lora.r=8"
    plant(results, name, engine="peft", trained="adapter")
    told = record_speeds(results, recipes(tmp_path, measured("peft")) | {name: Recipe()}, SHAPE)
    assert told.startswith("1 arms kept")
    assert [row.arm for row in load().on("NVIDIA H200", BF16)] == ["peft"]
