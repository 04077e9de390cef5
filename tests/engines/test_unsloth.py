"""What the engine asks of Unsloth, with a stand-in for it: a run of it needs a GPU (tests/gpu)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engines.test_choices import H200
from tests.tiny import make_model
from toolkit.data.tokenizers import load_tokenizer
from toolkit.engines import ENGINES, Loaded
from toolkit.engines.base import Choice
from toolkit.errors import EngineError
from toolkit.models.families import load_shape
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe, TrainSection


class FastLanguageModel:
    """transformers and PEFT, with functions of Unsloth's name on the first `fused` layers' MLPs."""

    asked: dict[str, Any]
    fused = 0

    @classmethod
    def from_pretrained(cls, model_name: str, **settings: Any) -> Any:
        from transformers import AutoModelForCausalLM

        cls.asked = settings
        return AutoModelForCausalLM.from_pretrained(model_name, dtype=settings["dtype"]), None

    @classmethod
    def get_peft_model(cls, model: Any, **settings: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        cls.asked |= settings
        keys = ("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora", "modules_to_save")
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{key: settings[key] for key in keys}))

        def apply_lora_mlp_swiglu(x: Any) -> Any: ...

        for layer in model.get_base_model().model.layers[: cls.fused]:
            layer.mlp.forward = apply_lora_mlp_swiglu
        return model


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraSection, **train: Any) -> Loaded:
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=FastLanguageModel))
    recipe = Recipe(model=ModelSection(name=str(folder)), lora=lora, train=TrainSection(engine="unsloth", **train))
    engine = ENGINES["unsloth"]
    engine.prepare()  # it is there already
    choice = Choice("unsloth", "test"), Choice("bf16", "test")
    return engine.load(recipe, folder, load_tokenizer(folder), *choice, H200)


def test_what_the_recipe_says_reaches_unsloth(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastLanguageModel, "fused", 1)
    lora = LoraSection(r=4, target_modules=["gate_proj", "up_proj", "down_proj"])
    loaded = load(tiny_model, monkeypatch, lora, gradient_checkpointing="auto", micro_batch="auto", max_length=128)
    asked = FastLanguageModel.asked
    assert (asked["dtype"], asked["load_in_16bit"], asked["max_seq_length"]) == (torch.bfloat16, True, 128)
    assert asked["use_gradient_checkpointing"] is True and asked["local_files_only"]
    assert loaded.report.patched == {"qkv": 0, "o": 0, "mlp": 1}
    assert loaded.packing.multiple(5_000, recorded=False) == 64


def test_a_layer_that_is_not_fused_is_no_run(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"train.engine: Unsloth fused .*'mlp': 0.* of 2 layers, wanted all of them"):
        load(tiny_model, monkeypatch, LoraSection(r=4))


@pytest.mark.parametrize("family", ["gemma3_text", "granitemoehybrid", "lfm2", "qwen3_5_text"])
def test_a_family_without_fused_layers_trains_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """All its linear layers do, whatever Unsloth takes for them, and packing is refused."""
    folder = make_model(tmp_path / "model", family)
    lora = LoraSection(r=4)
    loaded = load(folder, monkeypatch, lora, micro_batch="fixed", max_length=32)
    assert loaded.report.patched == {} and loaded.report.expected_layers == 0
    assert loaded.report.attention == f"sdpa; Unsloth has no fused layers for {family}, and compiles it"
    model = ModelSection(name=str(folder))
    assert FastLanguageModel.asked["target_modules"] != "all-linear"
    assert loaded.report.trainable == load_shape(model).trainable_parameters(lora)
    packed = Recipe(model=model, train=TrainSection(engine="unsloth", micro_batch="auto", max_length=32))
    (refused,) = ENGINES["unsloth"].refuses(packed)
    assert 'micro_batch = "fixed"' in str(refused) and family in str(refused)
    assert not list(ENGINES["unsloth"].refuses(packed.model_copy(update={"train": TrainSection(engine="unsloth")})))


def test_it_comes_first_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    monkeypatch.setitem(sys.modules, "trl", SimpleNamespace())
    with pytest.raises(EngineError, match=r"unsloth must be imported before trl.*; start a new process"):
        ENGINES["unsloth"].prepare()
