"""Which parts of layers Unsloth is held to fuse. Its functions are planted: Unsloth itself wants a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kernels.test_head_loss import adapted
from tests.tiny import make_model
from toolkit.engines.unsloth import check_patched, patched_layers
from toolkit.errors import EngineError
from toolkit.recipe.schema import Recipe


def apply_lora_o() -> None: ...


def apply_lora_mlp() -> None: ...


def apply_lora_qkv() -> None: ...


@pytest.mark.parametrize(
    ("family", "expected"), [("qwen3", {"qkv": 2, "o": 2, "mlp": 2}), ("qwen2", {"o": 2, "mlp": 2})]
)
def test_biases_are_not_to_be_fused(tmp_path: Path, family: str, expected: dict[str, int]) -> None:
    model = adapted(make_model(tmp_path / "model", family))
    layers = model.get_base_model().model.layers
    for layer in layers:
        layer.self_attn.apply_o, layer.mlp.forward = apply_lora_o, apply_lora_mlp
        if family == "qwen3":
            layer.self_attn.apply_qkv = apply_lora_qkv
    report: Any = SimpleNamespace(patched=patched_layers(model), expected_layers=2)
    assert report.patched == expected
    check_patched(report, Recipe())
    layers[1].self_attn.apply_o = None
    report.patched = patched_layers(model)
    with pytest.raises(EngineError, match=r"Unsloth fused \{'o': 1\} of 2 layers"):
        check_patched(report, Recipe())
