"""The NF4 round trip of an export's merge against the weights that bitsandbytes holds on a GPU."""

from __future__ import annotations

import pytest

from toolkit.export.nf4 import round_trip

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(256, 256), (2048, 6144), (576, 1536)])
def test_equals_what_training_holds(dtype: str, shape: tuple[int, int]) -> None:
    import torch

    functional = pytest.importorskip("bitsandbytes.functional")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    torch.manual_seed(0)
    weight = (torch.randn(shape) * 0.02).to(getattr(torch, dtype))
    packed, state = functional.quantize_4bit(weight.cuda(), blocksize=64, compress_statistics=True, quant_type="nf4")
    theirs = functional.dequantize_4bit(packed, state).cpu()
    mine = round_trip(weight)
    # the mean of the scales is summed in another order there, which may move a scale at the edge of two codes
    blocks = (mine != theirs).reshape(-1, 64).any(dim=1).float().mean().item()
    close = (mine.float() - theirs.float()).abs().max() / weight.float().abs().max()
    assert close < 0.02
    exact = (mine == theirs).float().mean().item()
    print(f"{dtype} {shape}: {exact:.6%} of the weights equal, {blocks:.4%} of the blocks differ")
    assert exact > 0.99
