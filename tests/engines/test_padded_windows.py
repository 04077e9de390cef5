"""Padding behind a short row is longer than a window: tokens of it see nothing at all, and no gradient is spoilt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engines.test_choices import CPU
from tests.export.shapes import base_model
from tests.kernels.test_head_loss import adapted
from tests.training.test_packing import rows_of
from toolkit.engines.base import Choice
from toolkit.engines.peft import load_base
from toolkit.kernels.head_loss import summed_loss
from toolkit.recipe.schema import ModelSection, Recipe
from toolkit.training.dataset import Collator


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma") / "model"
    return base_model(folder, "gemma3_text", num_hidden_layers=2, sliding_window=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_are_those_of_rows_alone(gemma: Path, dtype: torch.dtype) -> None:
    model = adapted(gemma)
    assert model.config._attn_implementation == "sdpa" and "sliding_attention" in model.config.layer_types
    rows = rows_of([10, 90, 40], model.config.vocab_size)
    found = []
    for batches in ([rows], [[row] for row in rows]):
        model.zero_grad()
        for batch in batches:
            padded = Collator(0)([{"rows": batch}])
            padded.pop("real_tokens")
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                loss, _ = summed_loss(model, padded)
            loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert found[0] and all(bool(gradient.isfinite().all()) for gradient in found[0])
    for mine, alone in zip(*found, strict=True):
        assert float((mine - alone).norm()) <= (1e-4 if dtype == torch.float32 else 0.15) * float(alone.norm()) + 1e-6


def test_a_model_that_is_loaded_attends_without_cudnn(gemma: Path) -> None:
    """Whose backward under a mask gives NaN on Hopper."""
    usual = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        load_base(Recipe(model=ModelSection(name=str(gemma))), gemma, Choice("fp32", "test"), CPU)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(usual)
