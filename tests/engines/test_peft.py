"""The plain engine on a CPU, with bitsandbytes' NF4 where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit import engines
from toolkit.data.tokenizers import load_tokenizer
from toolkit.engines.base import Choice
from toolkit.hardware import Hardware
from toolkit.recipe.schema import LoraSection, ModelSection, Recipe, TrainSection


def loaded(folder: Path) -> Any:
    recipe = Recipe(
        model=ModelSection(name=str(folder), load_in_4bit=True),
        lora=LoraSection(r=4, lora_dropout=0.0),
        train=TrainSection(engine="peft", gradient_checkpointing=False),
    )
    hardware = Hardware(gpu=None, cpu="test", cores=1, cpu_bf16=True, memory=2**34)
    choice = Choice("peft", "test"), Choice("bf16", "test")
    model = engines.load(recipe, folder, load_tokenizer(folder), *choice, hardware).model
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def gradients(model: Any) -> dict[str, torch.Tensor]:
    ids = torch.arange(3, 67)[None] % model.config.vocab_size
    model.train()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, labels=ids).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_evaluating_first_leaves_nf4_gradients_as_they_are(tiny_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    fresh = gradients(loaded(tiny_model))
    model = loaded(tiny_model).eval()
    with torch.no_grad():
        model(input_ids=torch.arange(3, 19)[None])
    after = gradients(model)
    assert fresh and fresh.keys() == after.keys()
    for name, gradient in fresh.items():
        torch.testing.assert_close(after[name], gradient)
