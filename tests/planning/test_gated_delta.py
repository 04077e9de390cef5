"""What Qwen3.5's layers keep for backward: counted on a CPU, and two peaks that were measured on an H200."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from tests.gpu.family_models import SHAPES, settings
from toolkit.engines import ENGINES
from toolkit.engines.gated_delta import delta_of
from toolkit.engines.setup import Setup
from toolkit.models.families import shape_from_config
from toolkit.planning.memory import training_memory
from toolkit.recipe.schema import LoraSection

GIB = 2**30
TINY = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "layer_types": ["linear_attention"],
}


@pytest.fixture(autouse=True)
def slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.engines.gated_delta._has_fast", lambda: False)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"hidden_size": 512},
        {"linear_num_key_heads": 8, "linear_num_value_heads": 8},
        {"linear_num_value_heads": 8},
        {"linear_key_head_dim": 64, "linear_value_head_dim": 64},
    ],
    ids=str,
)
def test_what_a_rule_keeps(own: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen3_5_text", **{**TINY, **own})
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16).requires_grad_(False)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that no other takes its place
        return tensor

    hidden = torch.randn(2, 256, config.hidden_size, dtype=torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        model.get_base_model().model.layers[0].linear_attn(hidden)
    counted = sum(size for size, _ in seen.values()) / (2 * 256)
    delta = delta_of(shape_from_config(config.to_dict(), "tiny"))
    assert delta is not None and delta.share == 1
    assert delta.bytes == pytest.approx(counted, rel=0.08)


def test_the_peaks_of_a_card() -> None:
    """docs/benchmarks/2026-11-30-families.md; tokens are those of the largest micro-batch that was planned there."""
    shape = shape_from_config({"model_type": "qwen3_5_text", **settings(SHAPES["qwen3.5-0.8b"])}, "true")
    lora = LoraSection(r=16)
    dropped = sum(fan_in for _, fan_in, _ in shape.lora_targets("all-linear")) // shape.num_hidden_layers
    padded = Setup(
        shape, ENGINES["peft"], "16-bit", shape.trainable_parameters(lora), checkpointing="on", dropped=dropped
    )
    packed = replace(padded, checkpointing="off", packed=True)
    for setup, tokens, measured in ((padded, 5248, 3.404), (packed, 13_312, 72.48)):
        assert training_memory(setup, 1, tokens, tokens // 4).peak / GIB == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("family", "fast", "said"),
    [("qwen3.5-0.8b", False, "hybrid"), ("qwen3.5-0.8b", True, "not measured"), ("llama-3.2-1b", False, None)],
)
def test_a_plan_says_that_its_time_is_without_the_rules(
    family: str,
    fast: bool,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("toolkit.engines.gated_delta._has_fast", lambda: fast)
    config = {"model_type": SHAPES[family].model_type, **settings(SHAPES[family])}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.toml").write_text(f"[model]\nname = {json.dumps(str(tmp_path / 'model'))}\n")
    code, out, err = toolkit(capsys, monkeypatch, "plan", str(tmp_path / "recipe.toml"), "--gpu", "h200")
    lines = [line for line in out.splitlines() if "gated delta rules" in line]
    assert (code, len(lines)) == (0, said is not None), out + err
    assert said is None or said in lines[0]
