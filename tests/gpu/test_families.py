"""Windows and hybrids on a CUDA GPU: packed rows of each family's tiny model are as chats alone, plain and compiled.

python -m pytest tests/gpu/test_families.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.export.shapes import base_model
from tests.families.test_every_family import LENGTHS
from tests.kernels.test_head_loss import adapted
from tests.training.test_compiled import step
from tests.training.test_packing import gradients, rows_of
from toolkit.models.families import FAMILIES

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
WINDOWED, HYBRID = ("gemma3_text", "olmo3", "mistral"), ("lfm2", "qwen3_5_text")
Found = tuple[float, dict[str, Any]]


def model_of(family: str, folder: Path, device: str, dtype: Any) -> Any:
    """With adapters on all linear layers and, where the family has one, a window shorter than the longest row."""
    model = adapted(base_model(folder / "model", family)).to(device, dtype)
    if FAMILIES[family].windowed:
        model.config.sliding_window = 64
    return model


def moved(batch: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in batch.items()}


def padded_batch(model: Any, device: str) -> dict[str, Any]:
    from toolkit.training.dataset import Collator

    return moved(Collator(0)([{"rows": rows_of(LENGTHS, model.config.vocab_size)}]), device)


def packed_batches(model: Any, device: str) -> list[dict[str, Any]]:
    from toolkit.engines.compiled_layers import EDGES
    from toolkit.training.packing import PackingCollator

    rows = rows_of(LENGTHS, model.config.vocab_size)
    batches = PackingCollator(0, 100, 64, EDGES)([{"rows": rows}])["micro_batches"]
    assert len(batches) == 2
    return [moved(batch, device) for batch in batches]


def check(found: Found, expected: Found, dtype: Any) -> None:
    """(loss, gradients), in 16 bits as far as products in another order are alike: of the largest gradient's norm too,
    as what is far smaller is a difference of such products."""
    narrow = dtype != torch.float32
    assert found[0] == pytest.approx(expected[0], rel=0.02 if narrow else 1e-4)
    assert found[1].keys() == expected[1].keys() and expected[1]
    norms = {name: float(gradient.float().norm()) for name, gradient in expected[1].items()}
    within, least = (0.15, 0.02 * max(norms.values())) if narrow else (2e-3, 1e-6)
    for name, gradient in expected[1].items():
        difference = float((found[1][name].float() - gradient.float()).norm())
        assert difference <= within * max(norms[name], least), (name, difference, norms[name])


def packed_is_padded(family: str, folder: Path, device: str, dtype: Any) -> None:
    model = model_of(family, folder, device, dtype)
    expected = gradients(model, [padded_batch(model, device)], packs=False)
    check(gradients(model, packed_batches(model, device), packs=True), expected, dtype)


def compiled_is_packed(family: str, folder: Path, device: str, dtype: Any, backend: str | None = None) -> None:
    from toolkit.engines.compiled_layers import CompiledLayers
    from toolkit.kernels.packed_attention import find_kernel

    model = model_of(family, folder, device, dtype)
    expected = step(model, packed_batches(model, device), None)
    torch._dynamo.reset()
    kernel = find_kernel(torch.device(device), dtype, FAMILIES[family].shape(model.config.to_dict(), "").head_dim)
    layers = CompiledLayers(model, longest=512, kernel=kernel, backend=backend, fuse=dtype)
    try:
        check(step(model, packed_batches(model, device), layers), expected, dtype)
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", [*WINDOWED, *HYBRID])
def test_packed_rows_are_chats_alone(family: str, tmp_path: Path, dtype: Any) -> None:
    packed_is_padded(family, tmp_path, "cuda", dtype)


@pytest.mark.parametrize("family", [name for name in (*WINDOWED, *HYBRID) if not FAMILIES[name].not_compiled])
def test_compiled_layers_compute_the_same(family: str, tmp_path: Path) -> None:
    compiled_is_packed(family, tmp_path, "cuda", torch.bfloat16)


@pytest.mark.parametrize("family", HYBRID)
def test_what_is_installed_keeps_to_rows(family: str, tmp_path: Path) -> None:
    """causal-conv1d and flash-linear-attention are handed rows' edges on this card: they agree with our own way."""
    from toolkit.kernels.row_states import conv_agrees, delta_agrees

    pytest.importorskip("causal_conv1d")
    card = torch.device("cuda", torch.cuda.current_device())
    model = model_of(family, tmp_path, "cuda", torch.bfloat16)
    module: Any = sys.modules[type(model.get_base_model()).__module__]
    assert conv_agrees(module.causal_conv1d_fn, card, torch.bfloat16, 4 if family == "qwen3_5_text" else 3)
    if family == "qwen3_5_text":
        pytest.importorskip("fla")
        assert delta_agrees(module.torch_chunk_gated_delta_rule, card, torch.bfloat16, 16, 16)
