"""Real tokenizers with their chat templates, where this machine has them.

They come from the folder of tokenizer folders that `TOOLKIT_TEST_MODELS` names, or from the hub's cache; nothing is
downloaded. Tests that need one skip where neither has it.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

QWEN3 = ("qwen3-tokenizer", "Qwen/Qwen3-1.7B")


def find_tokenizer(folder: str, hub_id: str) -> Path | None:
    """The folder that holds tokenizer.json: `folder` in TOOLKIT_TEST_MODELS, or a snapshot of `hub_id` in the cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if models := os.environ.get("TOOLKIT_TEST_MODELS"):
        place = Path(models).resolve() / folder
        if (place / "tokenizer.json").is_file():
            return place
    snapshots = Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    found = sorted(path.parent for path in snapshots.glob("*/tokenizer.json"))
    return found[-1] if found else None


@cache
def load_once(folder: Path) -> Any:
    """A tokenizer that takes seconds to load and that no test changes."""
    from toolkit.data.tokenizers import load_tokenizer

    return load_tokenizer(folder)


def need_tokenizer(folder: str, hub_id: str) -> Path:
    """`find_tokenizer`, or skip the test with the reason."""
    found = find_tokenizer(folder, hub_id)
    if found is None:
        pytest.skip(f"no tokenizer of {hub_id}: neither TOOLKIT_TEST_MODELS nor the hub's cache has it")
    return found


def make_qwen3(folder: Path, tokenizer: Path) -> Path:
    """A model folder: Qwen3's real tokenizer and template over a tiny model with random float32 weights (10 million,
    nearly all of them the vocabulary's)."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 151_936,
        "hidden_size": 64,
        "head_dim": 16,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
    }
    Qwen3ForCausalLM(Qwen3Config(**shape)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder
