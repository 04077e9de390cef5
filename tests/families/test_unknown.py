"""Models of families that are not known: planned from their files, trained padded, refused by name beyond."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from tests.engines.test_choices import H200, every
from tests.tiny import make_model, write_recipe
from toolkit.engines.choice import choose_engine
from toolkit.engines.recipes import load
from toolkit.errors import RecipeError
from toolkit.models.families import load_shape, shape_from_config, unknown_family, why_not_packed
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe, TrainSection


@pytest.fixture(scope="module", params=["gpt2", "stablelm", "olmoe"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp(request.param) / "model", request.param)


def test_sizes_are_those_of_the_weights(other: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shape = load_shape(ModelSection(name=str(other)))
    model = AutoModelForCausalLM.from_pretrained(other)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    assert shape.num_hidden_layers == 2 and shape.hidden_size == 64
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    experts = "experts" in str(shape.layers)  # which PEFT adapts in one tensor, gate and up together
    assert shape.trainable_parameters(LoraSection(r=4)) == pytest.approx(trained, rel=0.35 if experts else 0)
    assert f"{shape.model_type} is not a known family" in str(unknown_family(shape))


def test_without_weights_the_sizes_of_config_json_are_taken() -> None:
    """Published: GPT-2's 124M without its positions and biases, Qwen3-30B-A3B's 30.5 billion."""
    gpt2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
    assert shape_from_config(gpt2, "config.json").parameters == pytest.approx(124.4e6, rel=0.25)
    moe = {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "moe_intermediate_size": 768,
        "intermediate_size": 6144,
        "vocab_size": 151_936,
        "tie_word_embeddings": False,
    }
    assert shape_from_config(moe, "config.json").parameters == pytest.approx(30.53e9, rel=0.001)
    text = {"model_type": "seen", "text_config": gpt2}
    assert shape_from_config(text, "config.json").hidden_size == 768


def test_weights_that_are_quantised_or_broken_leave_the_sizes_of_config_json(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}
    header = json.dumps({"h.0.attn.weight": {"dtype": "U8", "shape": [8, 8], "data_offsets": [0, 64]}}).encode()
    for content in (len(header).to_bytes(8, "little") + header + bytes(64), b"no safetensors at all"):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert shape_from_config(config, str(tmp_path / "config.json")).intermediate_size == 256


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"micro_batch": "auto"}, "micro_batch: this model's chats can't be packed: gpt2 is not a known family"),
        (
            {"engine": "compiled", "micro_batch": "auto"},
            "engine: \"compiled\" takes packed chats only, and this model's can't be: gpt2 is not a known family",
        ),
    ],
)
def test_what_needs_a_known_family_is_refused_with_its_line(
    tmp_path: Path, train: dict[str, str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    recipe = write_recipe(tmp_path, folder, 12, train=train)
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    assert message in str(caught.value) and "tiny.toml:" in str(caught.value)


HYBRID = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}
DELTA = {"model_type": "qwen3_5_text", "layer_types": ["linear_attention", "full_attention"]}
WINDOW = {"model_type": "mistral", "sliding_window": 64}


@pytest.mark.parametrize(
    ("config", "engine", "message"),
    [
        (WINDOW, "unsloth", "\"unsloth\" can't pack this model's chats: its tokens see a window of 64, and chats may"),
        (HYBRID, "unsloth", "\"unsloth\" can't pack this model's chats: Unsloth has no layers of its own for lfm2"),
        (DELTA, "compiled", '"compiled" can\'t run this model: torch would compile its gated delta layers anew'),
        ({**WINDOW, "sliding_window": 512}, "unsloth", ""),
        (WINDOW, "peft", ""),
        (HYBRID, "compiled", ""),
        (DELTA, "peft", ""),
    ],
)
def test_what_an_engine_does_not_close_is_refused_with_its_line(
    tmp_path: Path, config: dict[str, Any], engine: str, message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"engine": engine, "micro_batch": "auto", "max_length": 512}
    recipe = write_recipe(tmp_path, folder, 12, train=settings)
    section = ModelSection(name=str(folder))
    assert why_not_packed(section, 512) is None and why_not_packed(ModelSection(name="nobody/nothing"), 64) is None
    if message:
        with pytest.raises(RecipeError) as caught:
            load(recipe)
        assert f"train.engine: {message}" in str(caught.value) and "tiny.toml:" in str(caught.value)
    else:
        load(recipe)


def test_auto_takes_an_engine_that_packs_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HYBRID))
    for micro_batch, engine in (("auto", "peft"), ("fixed", "unsloth")):
        train = TrainSection.model_validate({"micro_batch": micro_batch})
        choice = choose_engine(Recipe(model=ModelSection(name=str(tmp_path)), train=train), H200, every)
        assert choice.value == engine, choice


def test_planned_trained_and_not_exported(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(*words: str) -> tuple[int, str, str]:
        return toolkit(capsys, monkeypatch, *words)

    model = make_model(tmp_path / "model", "stablelm")
    recipe = write_recipe(tmp_path, model, 12, train={"max_steps": 1}, eval={"generate": 2, "max_new_tokens": 4})
    code, said, _ = say("plan", str(recipe), "--gpu", "cpu")
    assert code == 0 and "stablelm is not a known family" in said and "memory" in said
    code, said, _ = say("run", str(recipe), "--out", str(tmp_path / "run"))
    assert code == 0 and "note       stablelm is not a known family" in said
    code, _, said = say("export", str(tmp_path / "run"))
    assert code == 2 and "StableLmForCausalLM (stablelm) can't be exported; what can: " in said
