"""FLOPs against hand counts, and against torch's own counter on a small model."""

from __future__ import annotations

import pytest

from toolkit.models.families import KNOWN, shape_from_config
from toolkit.planning.flops import attention_flops, training_flops

QWEN = KNOWN["Qwen/Qwen3-1.7B"]


@pytest.mark.parametrize(
    ("width", "checkpointing", "trained", "giga"),
    [
        (500, True, 1.0, 10.1),
        (500, False, 1.0, 7.2),
        (500, False, 0.3, 6.3),
        (2048, True, 1.0, 10.9),
        (2048, False, 1.0, 7.8),
    ],
)
def test_operations_of_a_token(width: int, checkpointing: bool, trained: float, giga: float) -> None:
    flops = training_flops(QWEN, 1, width, trained, 17_432_576, checkpointing=checkpointing)
    assert flops / 1e9 == pytest.approx(giga, abs=0.1)


def test_torchs_counter_agrees() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 256,
        "tie_word_embeddings": True,
    }
    shape = shape_from_config(config, "config.json")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")
    rows, width = 2, 64
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(rows, width, dtype=torch.long))
    # eager attention computes the whole square, a causal kernel half of it
    tokens = rows * width
    square = tokens * 4 * shape.num_hidden_layers * shape.attention_size * width
    linear = tokens * (2 * shape.linear_parameters + 2 * shape.head_parameters)
    causal = linear + tokens * attention_flops(shape, width)
    rotary = counter.get_total_flops() - linear - square
    assert 0 <= rotary < 0.01 * linear
    assert linear < causal < linear + square
