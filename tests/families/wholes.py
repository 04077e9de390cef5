"""Tiny random models of text and images, in the layout in which such models are published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.export.shapes import base_model
from tests.tiny import split_as
from toolkit.models.families import FAMILIES

WHOLES = {"gemma3": "Gemma3", "qwen3_5": "Qwen3_5", "mistral3": "Mistral3"}
"""By model_type, how transformers' classes begin."""
_TEXT = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text", "mistral3": "ministral3"}
_SMALL = {"hidden_size": 32, "intermediate_size": 32}
_SEES: dict[str, dict[str, Any]] = {
    "gemma3": {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
    "qwen3_5": {"depth": 1, "num_heads": 2, "out_hidden_size": 64, "num_position_embeddings": 16},
    "mistral3": {"model_type": "pixtral", "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16},
}
# as google/gemma-3-4b-it's, whose text_config leaves these to transformers
_USUAL = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256}
_SAID = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window", "vocab_size")
_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def make_whole(folder: Path, kind: str) -> tuple[Path, Path]:
    """(the whole, its text part alone): two model folders with the same weights of text and the same tokenizer."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    usual: dict[str, Any] = {**_USUAL, "rope_parameters": _ROPES, "max_position_embeddings": 131_072}
    own = usual if kind == "gemma3" else {}
    text = base_model(folder / "text", _TEXT[kind], **own)
    split_as(text, FAMILIES[_TEXT[kind]].pre_tokenizers[0])
    settings = json.loads((text / "config.json").read_text())
    sees = {**_SMALL, **_SEES[kind]}
    config = AutoConfig.for_model(kind, text_config=settings, vision_config=sees, tie_word_embeddings=True)
    torch.manual_seed(2)
    model = getattr(transformers, f"{WHOLES[kind]}ForConditionalGeneration")(config).bfloat16()
    part: Any = AutoModelForCausalLM.from_pretrained(text)
    model.model.language_model.load_state_dict(part.model.state_dict())
    whole = folder / "whole"
    model.save_pretrained(whole)
    for path in (*text.glob("*token*"), *text.glob("*.jinja")):
        shutil.copy(path, whole)
    if kind == "gemma3":
        path = whole / "config.json"
        said = json.loads(path.read_text())
        said["text_config"] = {key: said["text_config"][key] for key in _SAID}
        said["text_config"]["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
        del said["tie_word_embeddings"]
        path.write_text(json.dumps(said))
    return whole, text
