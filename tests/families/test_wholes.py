"""Models of text and images: their text part is planned, trained and exported as the same model alone would be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.families.wholes import WHOLES, make_whole
from tests.tiny import write_recipe
from toolkit.engines import registry
from toolkit.errors import ModelError
from toolkit.export.architecture import read_architecture
from toolkit.export.export import export
from toolkit.export.merge import open_merged
from toolkit.export.verify import VerifyReport
from toolkit.models.families import FAMILIES, left_out, load_shape, shape_from_config, text_part
from toolkit.models.loading import load_model, text_name
from toolkit.recipe import load
from toolkit.recipe.schema import ModelSection
from toolkit.training.run import run


class Both(NamedTuple):
    """A whole and its text part alone, two folders."""

    kind: str
    whole: Path
    text: Path


@pytest.fixture(scope="module", params=sorted(WHOLES))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(request.param, *make_whole(tmp_path_factory.mktemp(request.param), request.param))


def test_a_whole_is_planned_as_its_text_part(both: Both) -> None:
    model = ModelSection(name=str(both.whole))
    assert load_shape(model) == load_shape(ModelSection(name=str(both.text)))
    assert f"{both.kind} is a model of text and images" in str(left_out(model))
    assert left_out(ModelSection(name=str(both.text))) is None


def test_the_text_part_is_loaded_alone(both: Both, capfd: pytest.CaptureFixture[str]) -> None:
    """And computes what the whole does where there is only text."""
    import torch
    import transformers

    capfd.readouterr()
    model, found = load_model(both.whole, dtype=torch.float32, output_loading_info=True)
    assert "UNEXPECTED" not in capfd.readouterr().err and not found["missing_keys"]
    assert model.name_or_path == str(both.whole)
    alone = dict(load_model(both.text, dtype=torch.float32).named_parameters())
    weights = dict(model.named_parameters())
    assert weights.keys() == alone.keys() and all(torch.equal(weights[name], alone[name]) for name in alone)
    whole_class = getattr(transformers, f"{WHOLES[both.kind]}ForConditionalGeneration")
    whole = whole_class.from_pretrained(both.whole, dtype=torch.float32)
    ids = torch.arange(3, 99)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, whole(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_an_export_reads_its_weights_by_the_names_of_the_text_part(both: Both) -> None:
    import torch

    whole, text = open_merged(both.whole, None), open_merged(both.text, None)
    assert whole.architecture.tensors == text.architecture.tensors
    assert whole.architecture.rope_theta == text.architecture.rope_theta
    for name in text.architecture.tensors:
        assert torch.equal(whole.read(name), text.read(name))


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.3.mlp.up_proj.weight",
        "language_model.model.layers.3.mlp.up_proj.weight",
        "model.layers.3.mlp.up_proj.weight",
    ],
)
def test_names_of_a_text_part(name: str) -> None:
    assert text_name(name) == "model.layers.3.mlp.up_proj.weight"


@pytest.mark.parametrize("name", ["lm_head.weight", "language_model.lm_head.weight", "model.visual.merger.norm.weight"])
def test_names_beside_the_layers(name: str) -> None:
    assert text_name(name) == name.removeprefix("language_model.")


def test_what_a_text_config_leaves_out_is_as_transformers_has_it() -> None:
    from transformers import AutoConfig

    for family in FAMILIES.values():
        usual = AutoConfig.for_model(family.model_type).to_dict() if family.text_defaults else {}
        assert {**usual, **family.text_defaults} == usual


def test_settings_of_the_text_outside_of_its_part() -> None:
    text = {"model_type": "mistral", "hidden_size": 64, "dtype": "bfloat16"}
    config = {"model_type": "mistral3", "text_config": text, "tie_word_embeddings": True, "dtype": "float16"}
    part = text_part({**config, "quantization_config": {"quant_method": "fp8"}})
    assert part["tie_word_embeddings"] and part["dtype"] == "bfloat16" and part["quantization_config"]
    assert part["architectures"] == ["MistralForCausalLM"]
    assert not text_part({**config, "text_config": {**text, "tie_word_embeddings": False}})["tie_word_embeddings"]
    with pytest.raises(ModelError, match=r"config.json: num_attention_heads is missing"):
        shape_from_config(config, "config.json")


def test_quantised_weights_of_a_whole_are_refused_by_name(both: Both, tmp_path: Path) -> None:
    config = json.loads((both.whole / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ModelError, match=r"weights are quantised \(fp8\)"):
        read_architecture(tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"model_type": "qwen3_vl"},
            "no causal language model for qwen3_vl; .* gemma3, mistral3, qwen3_5 can be trained",
        ),
        ({"text_config": {"model_type": "nope"}}, "text_config.model_type = nope, which transformers does not know"),
        ({"text_config": {"hidden_size": 64}}, "text_config.model_type = none"),
    ],
)
def test_what_can_not_be_loaded_is_refused_by_name(
    both: Both, tmp_path: Path, said: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(both.whole, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **said}))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_unsloth_is_refused_as_it_would_load_all(both: Both, tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, both.whole, 2)).recipe
    (reason,) = (one for one in registry.ENGINES["unsloth"].refuses(recipe) if ("model", "name") in one.keys)
    assert "all of this model of text and images" in reason.message


def test_from_a_run_to_an_export_of_the_text_alone(
    both: Both, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(
        tmp_path,
        both.whole,
        16,
        data={"call_format": "hermes"},
        train={"max_steps": 3, "gradient_checkpointing": False, "micro_batch": "auto"},
        eval={"early_stopping_patience": 0, "max_new_tokens": 12},
    )
    done = run(load(recipe), tmp_path / "run", export=False)
    made = export(str(done.path), gguf=["f16"], chats=2)
    report = VerifyReport.load(made.path)
    assert made.record().status == "passed" and not report.skipped, report.lines
    assert any("is a model of text and images" in note for note in made.record().notes)
    merged = json.loads((made.path / "merged" / "config.json").read_text())
    family = FAMILIES[load_shape(ModelSection(name=str(both.text))).model_type]
    assert merged["architectures"] == [family.class_name] and merged["model_type"] == family.model_type
    assert "vision_config" not in merged


def test_an_adapter_over_the_whole_is_refused(both: Both, tmp_path: Path) -> None:
    """Trained elsewhere, by names that the text part does not have."""
    import torch
    from safetensors.torch import save_file

    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(both.whole)}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.language_model.layers.0.mlp.up_proj"
    save_file({f"{name}.lora_A.weight": torch.ones(4, 64)}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"trained with the part that sees images around the text's"):
        open_merged(both.whole, folder)
