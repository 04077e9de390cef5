"""The streamed merge against PEFT's own, feature by feature, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.shapes import LINEARS, adapter, base_model
from toolkit.errors import ModelError, RunError
from toolkit.export.merge import open_merged
from toolkit.export.merged import write_merged
from toolkit.export.tensors import Checkpoint, stream

IDS = list(range(3, 60, 4))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        "tied": base_model(root / "tied"),
        "untied": base_model(root / "untied", tied=False),
        "llama": base_model(root / "llama", "llama", attention_bias=True, dtype="float32"),
    }


def peft_merged(base: Path, folder: Path) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return dict(PeftModel.from_pretrained(model, str(folder)).merge_and_unload().state_dict())


FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("tied", {}),
    "rslora": ("tied", {"use_rslora": True}),
    "ranks": ("tied", {"rank_pattern": {"q_proj": 8, "layers.1.mlp.up_proj": 2}}),
    "alphas": ("tied", {"alpha_pattern": {"down_proj": 32}, "rank_pattern": {"v_proj": 2}, "use_rslora": True}),
    "dora": ("tied", {"use_dora": True}),
    "head and norm": ("untied", {"modules_to_save": ["lm_head", "norm"]}),
    "embedding": ("untied", {"target_modules": [*LINEARS, "embed_tokens"]}),
    "bias": ("llama", {"bias": "all"}),
    "bias of adapted": ("llama", {"bias": "lora_only", "target_modules": ["q_proj", "v_proj"]}),
    "some modules": ("llama", {"target_modules": r".*layers\.0.*(q_proj|down_proj)"}),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_merged_is_pefts_merge(feature: str, bases: dict[str, Path], tmp_path: Path) -> None:
    import torch

    base, settings = bases[FEATURES[feature][0]], FEATURES[feature][1]
    folder = adapter(tmp_path / "adapter", base, **settings)
    wanted = peft_merged(base, folder)
    plain = open_merged(base, None)
    changed = 0
    for name, tensor in stream(open_merged(base, folder)):
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)
        changed += not torch.equal(tensor, plain.read(name))
    assert changed >= (2 if feature == "some modules" else 8)


def test_shards_are_read_and_written(bases: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base = bases["untied"]
    folder = adapter(tmp_path / "adapter", base)
    merged = open_merged(base, folder)
    files = write_merged(tmp_path / "merged", merged, base, "float16", shard_bytes=60_000)
    assert len(files) > 2 and (tmp_path / "merged" / "model.safetensors.index.json").is_file()
    again = Checkpoint(tmp_path / "merged", merged.architecture)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.dtype == torch.float16
    for name, tensor in stream(merged):
        assert torch.equal(again.read(name), tensor.to(torch.float16).float())
        assert torch.equal(model.state_dict()[name], tensor.to(torch.float16))
    files[1].unlink()
    with pytest.raises(ModelError, match="is not there"):
        Checkpoint(tmp_path / "merged", merged.architecture)


def test_merged_is_bfloat16_rounded_once(bases: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = adapter(tmp_path / "adapter", bases["tied"])
    merged = open_merged(bases["tied"], folder)
    (file,) = write_merged(tmp_path / "merged", merged, bases["tied"], "bfloat16")
    found = load_file(file)
    assert set(found) == set(merged.architecture.tensors) and "lm_head.weight" not in found
    assert all(torch.equal(found[name], tensor.to(torch.bfloat16)) for name, tensor in stream(merged))
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_adapter_of_another_base(bases: dict[str, Path], tmp_path: Path) -> None:
    other = base_model(tmp_path / "other", hidden_size=96, intermediate_size=160)
    folder = adapter(tmp_path / "adapter", other)
    with pytest.raises(ModelError, match=r"another base .*--base"):
        open_merged(bases["tied"], folder)
    deeper = base_model(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"has no model\.layers\.2.*another base"):
        open_merged(bases["tied"], adapter(tmp_path / "deep", deeper))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "VERA"}, "peft_type VERA"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base weights"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices can't be merged"),
        ({"fan_in_fan_out": True, "use_qalora": True}, "fan_in_fan_out, use_qalora"),
    ],
)
def test_what_no_merge_knows(bases: dict[str, Path], tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = adapter(tmp_path / "adapter", bases["tied"])
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match=words):
        open_merged(bases["tied"], folder)


def test_nan_in_the_adapter_and_in_the_base(bases: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = adapter(tmp_path / "adapter", bases["tied"])
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite"):
        open_merged(bases["tied"], folder)
    broken = base_model(tmp_path / "base")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.inf
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 1 values"):
        list(stream(open_merged(broken, None)))


def test_a_saved_head_on_a_tied_model(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = adapter(tmp_path / "adapter", bases["tied"])
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] = open_merged(bases["tied"], None).read("model.embed_tokens.weight")
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="one tensor"):
        open_merged(bases["tied"], folder)


def test_an_adapter_of_a_resized_vocabulary(bases: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = adapter(tmp_path / "adapter", bases["untied"])
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] = torch.zeros(512, 64)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"for a weight of \[512, 64\].*the vocabulary was resized"):
        open_merged(bases["untied"], folder)


def test_missing_and_misshapen_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = base_model(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if "layers.1.mlp.up" not in name}
    save_file(left, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, model\.layers\.1\.mlp\.up_proj\.weight"):
        open_merged(base, None)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-8].clone()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was the vocabulary resized"):
        open_merged(base, None)
    (base / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="can't be read"):
        open_merged(base, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]},
            "Gemma2ForCausalLM .*be exported",
        ),
        ({"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, r"quantised \(bitsandbytes\)"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "rope type yarn"),
        ({"attention_bias": True}, "no biases"),
    ],
)
def test_models_that_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    base = base_model(tmp_path / "base")
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ModelError, match=words):
        open_merged(base, None)


def test_no_adapter_there(bases: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not an adapter folder"):
        open_merged(bases["tied"], tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 8}))
    with pytest.raises(RunError, match=r"no adapter_model\.safetensors"):
        open_merged(bases["tied"], tmp_path)
