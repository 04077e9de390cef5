"""The formulas against peaks measured on one H200 with Qwen3-1.7B, r = 16, all-linear, fp32 adapters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toolkit.engines import ENGINES
from toolkit.engines.setup import Checkpointing, Held, Setup
from toolkit.models.families import KNOWN, shape_from_config
from toolkit.planning.memory import full_memory, training_memory, weight_bytes
from toolkit.recipe.schema import LoraSection

GIB = 2**30
QWEN = KNOWN["Qwen/Qwen3-1.7B"]
DROPPED = sum(fan_in for fan_in, _ in QWEN.linears.values())


def setup(engine: str, held: Held, checkpointing: Checkpointing, dropout: bool) -> Setup:
    trainable = QWEN.trainable_parameters(LoraSection())
    return Setup(QWEN, ENGINES[engine], held, trainable, checkpointing, dropped=DROPPED if dropout else 0)


# docs/benchmarks/2026-11-23-bench.md:
# (measured GiB, engine, weights, checkpointing, dropout, rows, width, all logits held)
MEASURED: list[tuple[float, str, Held, Checkpointing, bool, int, int, bool]] = [
    (18.38, "peft", "16-bit", "on", True, 4, 2048, True),
    (13.10, "peft", "16-bit", "on", True, 4, 1336, True),
    (45.95, "peft", "16-bit", "off", True, 4, 2048, True),
    (31.81, "peft", "16-bit", "off", True, 4, 1336, True),
    (6.05, "peft", "16-bit", "on", True, 4, 2048, False),
    (5.19, "peft", "16-bit", "on", True, 4, 1336, False),
    (5.72, "peft", "16-bit", "on", False, 4, 2048, False),
    (4.98, "peft", "16-bit", "on", False, 4, 1336, False),
    (32.60, "peft", "16-bit", "off", True, 4, 2048, False),
    (23.21, "peft", "16-bit", "off", True, 4, 1336, False),
    (3.73, "peft", "nf4", "on", True, 4, 2048, False),
    (3.00, "peft", "nf4", "on", True, 4, 1336, False),
    (5.33, "unsloth", "16-bit", "on", True, 4, 2048, False),
    (4.91, "unsloth", "16-bit", "on", True, 4, 1336, False),
    (5.09, "unsloth", "16-bit", "on", False, 4, 2048, False),
    (4.91, "unsloth", "16-bit", "on", False, 4, 1336, False),
    (20.88, "unsloth", "16-bit", "off", True, 4, 2048, False),
    (15.09, "unsloth", "16-bit", "off", True, 4, 1336, False),
    (4.58, "unsloth", "16-bit", "offloaded", True, 4, 2048, False),
    (4.43, "unsloth", "16-bit", "offloaded", True, 4, 1336, False),
    (3.40, "unsloth", "nf4", "on", True, 4, 2048, False),
    (2.99, "unsloth", "nf4", "on", True, 4, 1336, False),
    (10.61, "unsloth", "16-bit", "on", True, 16, 2048, False),
    (8.07, "unsloth", "16-bit", "on", True, 16, 1336, False),
    # Unsloth 2026.10.9, docs/benchmarks/2026-11-28-fast-path.md; above it is 2026.10.7
    (5.52, "unsloth", "16-bit", "on", True, 4, 2048, False),
    (72.82, "unsloth", "16-bit", "off", True, 16, 2048, False),
]
TRAINED = 0.114  # share of tokens with a label


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row[1]}-{row[2]}-{row[3]}-{row[5]}x{row[6]}-{row[0]}")
def test_measured_peaks(row: tuple[float, str, Held, Checkpointing, bool, int, int, bool]) -> None:
    measured, engine, held, checkpointing, dropout, rows, width, logits = row
    whole = replace(setup(engine, held, checkpointing, dropout), full_logits=logits)
    predicted = training_memory(whole, rows, width, int(rows * width * TRAINED))
    assert predicted.peak / GIB == pytest.approx(measured, rel=0.10)


@pytest.mark.parametrize(
    ("model", "tokens", "trained", "rows"),
    [
        ("Qwen/Qwen3-1.7B", 8192, 934, 512),
        ("Qwen/Qwen3-1.7B", 8192, 100, 100),
        ("Qwen/Qwen3-1.7B", 2**17, 2**17, 1024),
        ("HuggingFaceTB/SmolLM2-135M", 8192, 8192, 1024),
        ("HuggingFaceTB/SmolLM2-135M", 2**20, 2**20, 4096),
    ],
)
def test_unsloths_head_runs_over_so_many_trained_tokens_at_a_time(
    model: str, tokens: int, trained: int, rows: int
) -> None:
    """As unsloth_zoo.fused_losses.fused_linear.fused_linear_rows of 2026.10.9 said for the same numbers."""
    shape = KNOWN[model]
    given = replace(setup("unsloth", "16-bit", "on", dropout=False), shape=shape)
    kept = 4 * rows * (shape.vocab_size + shape.hidden_size) + 4 * tokens * shape.hidden_size
    assert given.engine.loss_transient(given, tokens, trained) == kept


@pytest.mark.parametrize(("held", "measured"), [("16-bit", 8.92), ("nf4", 6.97)])
def test_measured_peaks_of_attention_by_plain_products(held: Held, measured: float) -> None:
    """PEFT under the T4 profile, 4 x 2048 without padding: SDPA has neither flash nor a mask to go by."""
    whole = replace(setup("peft", held, "on", dropout=True), math_attention=True)
    assert training_memory(whole, 4, 2048, int(8192 * TRAINED)).peak / GIB == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("weights", "adam8", "width", "measured"),
    [
        ("mixed", False, 2048, 22.79),
        ("mixed", False, 1336, 22.79),
        ("fp32", False, 2048, 30.46),
        ("fp32", False, 1336, 29.73),
        ("mixed", True, 2048, 14.24),
        ("mixed", True, 1336, 13.85),
    ],
)
def test_measured_full_fine_tuning(weights: Any, adam8: bool, width: int, measured: float) -> None:
    base = setup("peft", "16-bit", "on", dropout=False)
    predicted = full_memory(base, 4, width, int(4 * width * TRAINED), weights=weights, adam8=adam8)
    assert predicted.peak / GIB == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_plain_peft_keeps_what_the_formula_says(kind: str, half: bool, dropout: float) -> None:
    """Counts the tensors that autograd saves in a padded micro-batch: those of a third and fourth layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {
        "model_type": kind,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 64,
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    rows, width = 1, 64

    def saved(layers: int) -> int:
        settings = AutoConfig.for_model(**config, num_hidden_layers=layers)
        dtype = torch.bfloat16 if half else torch.float32
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype, attn_implementation="sdpa")
        model = get_peft_model(model, LoraConfig(r=2, lora_dropout=dropout, target_modules="all-linear"))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        mask = torch.ones(rows, width, dtype=torch.long)
        mask[:, -8:] = 0
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
            model.get_base_model().model(input_ids=torch.zeros_like(mask), attention_mask=mask, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)

    shape = shape_from_config({**config, "num_hidden_layers": 4}, "config.json")
    dropped = sum(fan_in for fan_in, _ in shape.linears.values()) if dropout else 0
    engine = ENGINES["peft"]
    setup = Setup(shape, engine, "16-bit", 0, "off", element=2 if half else 4, dropped=dropped, cuda=False)
    counted = (saved(4) - saved(2)) / 2 / (rows * width)
    assert engine.layer_activations(setup) == pytest.approx(counted, rel=0.07)


def test_weights() -> None:
    assert weight_bytes(QWEN, "16-bit") == 2 * 1_720_574_976
    assert weight_bytes(QWEN, "fp32") == 4 * 1_720_574_976
    assert weight_bytes(QWEN, "nf4") / 1e9 == pytest.approx(1.350, abs=0.001)


def test_what_saves_memory_saves_it() -> None:
    def peak(
        engine: str = "unsloth", held: Held = "16-bit", checkpointing: Checkpointing = "on", width: int = 2048
    ) -> float:
        return training_memory(setup(engine, held, checkpointing, True), 4, width, 800).total

    assert peak(held="nf4") < peak() < peak(held="fp32")
    assert peak(checkpointing="offloaded") < peak() < peak(checkpointing="off")
    assert peak() < peak(engine="peft")
    assert peak(width=1024) < peak()
