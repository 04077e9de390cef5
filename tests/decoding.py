"""Prompts and a tiny model whose texts differ by prompt, and what other ways of decoding make of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tests.tiny import make_model

PROMPTS = [
    "<|im_start|>user\nChat 1: what is 3 plus 4?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nChat 7: what is 12 plus 99 please please please?<|im_end|>\n<|im_start|>assistant\n",
    "plus",
    "<|im_start|>user\nChat 2: what is 1 plus 1 please?<|im_end|>\n<|im_start|>assistant\nIt",
]


def load_lively(folder: Path, family: str, **shape: Any) -> tuple[Any, Any]:
    """A tiny random model in float32 and its tokenizer, made in `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = make_model(folder / "model", family, **shape)
    model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    enliven(model)
    return model.eval(), AutoTokenizer.from_pretrained(made)


def enliven(model: Any) -> None:
    """Random weights with which every prompt gives a text of its own: as initialised, attention hardly matters."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.normal_(std=0.15)


def adapted(model: Any, std: float = 0.5) -> Any:
    """A copy of `model` under a LoRA adapter on all linear layers that changes what it says."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=std)
    return peft.eval()


def by_generate(model: Any, ids: Sequence[int], most: int, stop_ids: Collection[int]) -> list[int]:
    """New tokens of one prompt alone, greedily, by transformers' own loop; the stop token is among them."""
    import torch

    tokens = torch.tensor([list(ids)], device=model.device)
    with torch.no_grad():
        made = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=list(stop_ids),
            pad_token_id=0,
        )
    return made[0, len(ids) :].tolist()  # type: ignore[no-any-return]
