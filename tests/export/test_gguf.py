"""What is in a GGUF, and that llama.cpp computes with it what transformers computes with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.shapes import LINEARS, LLAMA3_ROPE, adapter, base_model, peft_logits
from toolkit.errors import ModelError
from toolkit.export.lora import check_lora, write_lora
from toolkit.export.merge import Merged, open_merged
from toolkit.export.tensors import stream
from toolkit.export.tokenizer import read_tokenizer
from toolkit.export.writer import Float16OverflowError, Metadata, Type16, plain_name, write_gguf

IDS = list(range(3, 380, 11))
CASES: dict[str, dict[str, Any]] = {
    "qwen3": {"family": "qwen3"},
    "qwen3 untied": {"family": "qwen3", "tied": False},
    "llama": {"family": "llama"},
    "llama untied with biases": {"family": "llama", "tied": False, "attention_bias": True, "mlp_bias": True},
    "llama3 rope": {
        "family": "llama",
        "rope_parameters": LLAMA3_ROPE,
    },
}


def write(path: Path, weights: Merged, kind: Type16 = "F16") -> dict[str, int]:
    base = weights.base.folder
    tokenizer = read_tokenizer(base, weights.architecture.shape.vocab_size)
    return write_gguf(path, weights, tokenizer, Metadata("tiny", "Apache-2.0", "tiny/base"), kind)


@pytest.mark.parametrize("name", ["my-phi3-run", "Phi-3", "modern-bert-tools"])
def test_a_name_that_llama_cpp_takes_for_a_family_s(name: str, tmp_path: Path) -> None:
    """It would drop the blanks beside control tokens, or not load the file."""
    pytest.importorskip("xllamacpp")
    from toolkit.data.tokenizers import load_tokenizer
    from toolkit.inference.gguf import GgufModel

    base = base_model(tmp_path / "base", "llama")
    weights = open_merged(base, None)
    tokenizer = read_tokenizer(base, weights.architecture.shape.vocab_size)
    write_gguf(tmp_path / "x.gguf", weights, tokenizer, Metadata(name, None, None), "F16")
    text = "a <|im_start|> b <|im_end|>\n c"
    with GgufModel(tmp_path / "x.gguf", n_ctx=64, threads=1) as model:
        assert model.tokenize(text) == load_tokenizer(base)(text, add_special_tokens=False)["input_ids"]
    assert plain_name(name) != name and plain_name("quickstart-3") == "quickstart-3"


def dequantised(path: Path, weights: Merged) -> dict[str, Any]:
    """float32 values by transformers' name, rows as transformers has them, by the official reader."""
    import gguf
    import torch

    found = {}
    names = {short: name for name, short in weights.architecture.family.gguf_names(weights.architecture.shape).items()}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        name = names[tensor.name]
        shape = tuple(int(size) for size in tensor.shape[::-1])
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).copy())
        found[name] = weights.architecture.from_gguf(name, values)
    return found


def llama_logprobs(path: Path, positions: list[int], lora: Path | None = None) -> Any:
    """float32 [positions, vocabulary]: llama.cpp's log-probabilities of what follows IDS[:position]."""
    pytest.importorskip("xllamacpp")
    from toolkit.inference.gguf import GgufModel

    with GgufModel(path, n_ctx=256, threads=1, lora=lora) as model:
        size = model.n_vocab
        rows = np.full((len(positions), size), -np.inf, dtype=np.float32)
        for row, found in zip(rows, model.logprobs(IDS, positions, top=size), strict=True):
            row[found.ids] = found.logprobs
    return rows


def agree(rows: Any, logits: Any, positions: list[int], tolerance: float) -> float:
    """Assert that the probabilities agree, and return the largest KL divergence in nats."""
    import torch

    wanted = torch.log_softmax(logits[[position - 1 for position in positions]].double(), dim=-1).numpy()
    divergence = float((np.exp(wanted) * (wanted - rows)).sum(axis=1).max())
    assert (rows.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.9
    assert divergence < tolerance
    return divergence


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_computes_what_transformers_computes(case: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", **CASES[case])
    folder = adapter(tmp_path / "adapter", base)
    weights = open_merged(base, folder)
    types = write(tmp_path / "m.gguf", weights)
    assert types["F16"] == sum(len(shape) == 2 for shape in weights.architecture.tensors.values())
    positions = list(range(2, len(IDS), 3))
    logits = peft_logits(base, folder, IDS)
    rows = llama_logprobs(tmp_path / "m.gguf", positions)
    agree(rows, logits, positions, 2e-3)
    # the check has power: without the adapter it is another model
    with pytest.raises(AssertionError):
        agree(rows, peft_logits(base, None, IDS), positions, 2e-3)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_values_are_the_merged_ones_rounded_once(family: str, kind: Type16, tmp_path: Path) -> None:
    import torch

    base = base_model(tmp_path / "base", family, tied=False)
    weights = open_merged(base, adapter(tmp_path / "adapter", base))
    write(tmp_path / "m.gguf", weights, kind)
    found = dequantised(tmp_path / "m.gguf", weights)
    dtype = torch.float16 if kind == "F16" else torch.bfloat16
    assert set(found) == set(weights.architecture.tensors)
    for name, tensor in stream(weights):
        assert torch.equal(found[name], tensor if tensor.dim() == 1 else tensor.to(dtype).float()), name


def test_keys(tmp_path: Path) -> None:
    import gguf

    base = base_model(tmp_path / "base", "llama")
    weights = open_merged(base, None)
    write(tmp_path / "m.gguf", weights, "BF16")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    values = {key: field.contents() for key, field in fields.items()}
    assert values["general.architecture"] == "llama" and values["general.license"] == "apache-2.0"
    assert values["general.file_type"] == gguf.LlamaFileType.MOSTLY_BF16
    assert values["llama.attention.head_count_kv"] == 2 and values["llama.rope.dimension_count"] == 16
    assert values["llama.context_length"] == 2048
    assert len(values["tokenizer.ggml.tokens"]) == values["llama.vocab_size"] == weights.architecture.shape.vocab_size
    assert "<|im_start|>" in values["tokenizer.chat_template"]
    assert values["tokenizer.ggml.eot_token_id"] == values["tokenizer.ggml.eos_token_id"] == 2
    assert values["tokenizer.ggml.add_bos_token"] is False


def test_float16_overflow_names_the_weight(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = base_model(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = 70_000.0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    weights = open_merged(base, None)
    with pytest.raises(Float16OverflowError, match=r"down_proj\.weight reaches 70,\d{3}.*write bf16"):
        write(tmp_path / "m.gguf", weights)
    assert write(tmp_path / "m.gguf", weights, "BF16")["BF16"] == 15


LORAS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("qwen3", {}),
    "rslora": ("llama", {"use_rslora": True}),
    "patterns": ("qwen3", {"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"down_proj": 3}, "use_rslora": True}),
}


@pytest.mark.parametrize("case", LORAS)
def test_lora_gguf_on_the_base_is_the_merged_model(case: str, tmp_path: Path) -> None:
    family, settings = LORAS[case]
    base = base_model(tmp_path / "base", family)
    folder = adapter(tmp_path / "adapter", base, **settings)
    weights = open_merged(base, folder)
    assert weights.adapter is not None
    plain = open_merged(base, None)
    write(tmp_path / "base.gguf", plain)
    types = write_lora(tmp_path / "lora.gguf", weights.adapter, weights.architecture, Metadata("tiny"))
    assert types == {"F16": 2 * 14}
    positions = list(range(2, len(IDS), 5))
    rows = llama_logprobs(tmp_path / "base.gguf", positions, tmp_path / "lora.gguf")
    agree(rows, peft_logits(base, folder, IDS), positions, 2e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "DoRA can't be"),
        ({"modules_to_save": ["norm"]}, "whole weights or biases"),
        ({"target_modules": [*LINEARS, "embed_tokens"]}, "embedding"),
    ],
)
def test_more_than_a_lora_is_no_lora_gguf(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", tied=False)
    opened = open_merged(base, adapter(tmp_path / "adapter", base, **settings))
    assert opened.adapter is not None
    with pytest.raises(ModelError, match=f"{words}.*export the merged model"):
        check_lora(opened.adapter)
