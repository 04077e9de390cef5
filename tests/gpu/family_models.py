"""Models of true small shapes with random weights, under the first tokens of Qwen3's tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = 60_000  # tokens, so that each model's own vocabulary holds all ids


@dataclass(frozen=True, slots=True)
class TrueShape:
    """A published model's sizes, as its config.json has them. `parameters`: of its text, as counted from them.

    tiny: what a tiny model has in their place. source: where the sizes stand.
    """

    model_type: str
    parameters: int
    source: str
    config: dict[str, Any]
    tiny: dict[str, Any] = field(default_factory=dict)
    not_compiled: bool = False
    stock: tuple[str, ...] = ("unsloth", "peft")
    """What ours is compared with."""


_TINY = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 256}
SHAPES = {
    "llama-3.2-1b": TrueShape(
        "llama",
        1_235_814_400,
        "its config.json, as in thunder_model_blocks (hf_llama/llama_config.py): 1.24 billion parameters",
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "gemma-3-1b": TrueShape(
        "gemma3_text",
        999_885_952,
        "its config.json, as in gemma-jax (models/README.md); keras-hub (gemma3_presets.py) counts 999,885,952 too",
        {
            "vocab_size": 262_144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32_768,
            "query_pre_attn_scalar": 256,
        },
    ),
    "qwen3.5-0.8b": TrueShape(
        "qwen3_5_text",
        752_393_024,
        "slime (scripts/models/qwen3.5-0.8B.sh): all but the gated delta rule's heads, 16 and 16 of 128 by its card; "
        "vocabulary, size of heads and interval of layers are transformers' defaults of Qwen3_5TextConfig too",
        {
            "vocab_size": 248_320,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "max_position_embeddings": 262_144,
        },
        not_compiled=True,
        stock=("peft",),  # Unsloth compiles PyTorch's way through the gated delta rule for longer than four minutes
    ),
    "lfm2.5-1.2b": TrueShape(
        "lfm2",
        1_170_340_608,
        "the card of LFM2.5-1.2B: 16 layers, 10 of them convolutions, 65,536 tokens, 1.17 billion; LFM2-1.2B's card, "
        "which counts 1,170,340,608, and config.json for the rest; llama.cpp (src/models/lfm2.cpp) names an MLP of "
        "8,192, two thirds of 12,288, 1.2B",
        {
            "vocab_size": 65_536,
            "hidden_size": 2048,
            "intermediate_size": 12_288,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "full_attn_idxs": [2, 5, 8, 10, 12, 14],
            "conv_L_cache": 3,
            "max_position_embeddings": 128_000,
        },
        {"full_attn_idxs": [2]},
    ),
    "granite-4-1b": TrueShape(
        "granitemoehybrid",
        1_631_750_144,
        "its config.json, as beside the card in RAG-1M1B (models/GRANITE-1B/config.json)",
        {
            "vocab_size": 100_352,
            "hidden_size": 2048,
            "intermediate_size": 4096,
            "shared_intermediate_size": 4096,
            "num_hidden_layers": 40,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "layer_types": ["attention"] * 40,
            "position_embedding_type": "rope",
            "embedding_multiplier": 12,
            "attention_multiplier": 0.0078125,
            "residual_multiplier": 0.22,
            "logits_scaling": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000_000.0},
            "mamba_n_heads": 128,
            "mamba_d_head": 32,
        },
        {
            "layer_types": ["attention"] * 4,
            "shared_intermediate_size": 256,
            "mamba_n_heads": 16,
            "attention_multiplier": 0.0625,
        },
    ),
}


def settings(shape: TrueShape, *, tiny: bool = False) -> dict[str, Any]:
    """What a config.json says, but for the model_type."""
    ids = {"bos_token_id": KEPT, "eos_token_id": KEPT + 2, "pad_token_id": KEPT}
    return {**shape.config, **(_TINY | shape.tiny if tiny else {}), "tie_word_embeddings": True, **ids}


def make(shape: TrueShape, folder: Path, tokenizer: Path, *, tiny: bool = False) -> None:
    """A model folder with random bfloat16 weights, made on the card where there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(shape.model_type, **settings(shape, tiny=tiny))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    cut_tokenizer(tokenizer, folder)


def cut_tokenizer(tokenizer: Path, out: Path) -> None:
    """Qwen3's first tokens: the merges that need no others, with its special tokens behind them."""
    spec = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = {token: number for token, number in spec["model"]["vocab"].items() if number < KEPT}

    def known(merge: Any) -> bool:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        return first in vocab and second in vocab and first + second in vocab

    spec["model"] |= {"merges": [merge for merge in spec["model"]["merges"] if known(merge)], "vocab": vocab}
    said = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    said.pop("added_tokens_decoder", None)  # tokenizer.json has them, by their new numbers
    for number, token in enumerate(spec["added_tokens"]):
        token["id"] = KEPT + number
    (out / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    if (template := tokenizer / "chat_template.jinja").is_file():
        shutil.copy(template, out / template.name)
