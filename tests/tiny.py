"""A tiny random model with a real tokenizer, and short chats to train it on: whole runs in seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.models.families.base import PreTokenizer

CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def write_chats(path: Path, count: int, seed: int = 0) -> Path:
    """`count` chats that differ in length: a question, a call, its result and an answer."""
    numbers = random.Random(seed)
    lines = []
    for i in range(count):
        a, b = numbers.randint(0, 99), numbers.randint(0, 99)
        filler = " please" * numbers.randint(0, 12)
        call = {"type": "function", "function": {"name": "add", "arguments": json.dumps({"a": a, "b": b})}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": f"Chat {i}: what is {a} plus {b}{filler}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "add", "content": json.dumps({"sum": a + b})},
            {"role": "assistant", "content": f"It is {a + b}."},
        ]
        lines.append(json.dumps({"messages": messages, "tools": [ADD]}))
    path.write_text("\n".join(lines) + "\n")
    return path


Sections = dict[str, dict[str, Any]]


def _over(recipe: Sections, sections: Sections) -> Sections:
    """`recipe` with the values of `sections` in place of its own."""
    return {name: recipe.get(name, {}) | sections.get(name, {}) for name in {**recipe, **sections}}


def write_recipe(folder: Path, base: Path, chats: int, /, **sections: dict[str, Any]) -> Path:
    """tiny.toml in `folder`: the plain engine in float32 over `chats` short chats.

    `sections` put values over these; None leaves a key to its default.
    """
    source = write_chats(folder / "chats.jsonl", chats)
    recipe: Sections = {
        "model": {"name": str(base), "dtype": "float32"},
        "lora": {"r": 4},
        "data": {"call_format": "json"},
        "train": {"engine": "peft", "bf16": False, "learning_rate": 5e-3, "max_length": 512, "torch_threads": 1},
        "eval": {"holdout": 4},
    }
    recipe = _over(recipe, sections)
    lines = [f"[[data.sources]]\nsource = {json.dumps(str(source))}"]
    for section, values in recipe.items():
        said = (f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None)
        lines.append(f"[{section}]\n" + "\n".join(said))
    path = folder / "tiny.toml"
    path.write_text("\n\n".join(sorted(lines)) + "\n")
    return path


def write_gpu_recipe(folder: Path, chats: int, /, **sections: dict[str, Any]) -> Path:
    """tiny.toml in `folder` for a GPU: a tiny Qwen3 that Unsloth takes, engine and precision left to the machine."""
    model = make_model(folder / "tiny-qwen3", family="qwen3", hidden_size=256, head_dim=64)
    recipe: Sections = {
        "model": {"dtype": None},
        "lora": {"r": None},
        "train": {"engine": None, "bf16": None, "learning_rate": None, "torch_threads": None},
    }
    return write_recipe(folder, model, chats, **_over(recipe, sections))


def make_tokenizer(texts: list[str], template: str = CHATML, vocab_size: int = 400) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, with ChatML's special tokens and pad != eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    return tokenizer


OWN: dict[str, dict[str, Any]] = {
    "lfm2": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16},
    "qwen3_5_text": {
        "num_hidden_layers": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 0]},
    },
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75}},
    "olmo2": {"tie_word_embeddings": False},
    "olmo3": {"tie_word_embeddings": False, "num_hidden_layers": 4, "sliding_window": 64},
    "gemma3_text": {"num_hidden_layers": 6, "sliding_window": 64, "query_pre_attn_scalar": 16},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        }
    },
    "granitemoehybrid": {
        "shared_intermediate_size": 128,
        "num_local_experts": 0,
        "layer_types": ["full_attention"] * 2,
        "position_embedding_type": "rope",
        "mamba_n_heads": 4,
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.15,
        "residual_multiplier": 0.7,
        "logits_scaling": 0.5,
    },
    "smollm3": {"num_hidden_layers": 4},  # the last of which rotates nothing
    "granite": {
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.15,
        "residual_multiplier": 0.7,
        "logits_scaling": 0.5,
    },
}
"""What a family's tiny model needs to have what is its own."""


def make_model(
    folder: Path, family: str = "llama", template: str = CHATML, hidden_size: int = 64, head_dim: int = 16
) -> Path:
    """A model folder with random parameters in float32; `family` is a model_type. About 100 thousand by default."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    chats = write_chats(folder.parent / "tokenizer-text.jsonl", 50, seed=7).read_text().splitlines()
    tokenizer = make_tokenizer([message["content"] for line in chats for message in json.loads(line)["messages"]])
    tokenizer.chat_template = template
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "head_dim": head_dim,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **OWN.get(family, {}),
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def split_as(folder: Path, pre: PreTokenizer) -> None:
    """Let the tokenizer in a model folder split text as a family's does."""
    kinds: dict[str, Callable[[Any], dict[str, Any]]] = {
        "Split": lambda pattern: {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        "ByteLevel": lambda regex: {"add_prefix_space": False, "trim_offsets": False, "use_regex": regex},
        "Digits": lambda alone: {"individual_digits": alone},
    }
    parts = [{"type": kind, **kinds[kind](what)} for kind, what in pre.steps]
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["normalizer"] = {"type": pre.normalizers[0]} if pre.normalizers[0] else None
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    spec["model"]["ignore_merges"] = pre.ignore_merges
    path.write_text(json.dumps(spec))
