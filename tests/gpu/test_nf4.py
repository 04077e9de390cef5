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
    # The mean of the scales is summed in another order there: scales differ in their last bit, and one at the edge of
    # two codes goes to the other, with its 64 weights.
    off = (mine.float() - theirs.float()).abs() / weight.float().abs().max()
    moved = (off > 1e-5).float().mean().item()
    print(f"{dtype} {shape}: {(mine == theirs).float().mean():.4%} of the weights are equal, {moved:.4%} are moved")
    assert moved < 0.005
    if dtype != "float32":  # which has room for the scales' last bit
        assert (mine == theirs).float().mean() > 0.99
