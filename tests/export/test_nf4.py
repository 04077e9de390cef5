"""The NF4 round trip against bitsandbytes (skipped without it), and what it can't get wrong without it."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.export import nf4


def weight(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    return (torch.randn(shape) * 0.02).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_error_and_idempotence(dtype: str) -> None:
    import torch

    given = weight(dtype, (96, 200))
    found = nf4.round_trip(given)
    assert found.dtype == given.dtype and found.shape == given.shape
    error = ((found - given).float().norm() / given.float().norm()).item()
    assert 0.07 < error < 0.11  # of normal values in blocks of 64, with double quantisation
    assert torch.equal(found, nf4.round_trip(given))
    assert found.float().unique().numel() < given.float().unique().numel()


def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    given = weight("bfloat16", (128, 72))
    whole = nf4.round_trip(given)
    monkeypatch.setattr(nf4, "_ROWS", 64 * 7)
    assert torch.equal(nf4.round_trip(given), whole)


def test_zeros_stay_zeros() -> None:
    import torch

    assert torch.equal(nf4.round_trip(torch.zeros(64, 64)), torch.zeros(64, 64))


@pytest.mark.parametrize("shape", [(128, 256), (576, 1536), (200, 72)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_equals_bitsandbytes(dtype: str, shape: tuple[int, ...]) -> None:
    """Equal bit by bit but for scales that lie between two codes, where its CPU kernel's table takes the other one."""
    pytest.importorskip("bitsandbytes")
    import bitsandbytes.functional as F
    import torch

    given = weight(dtype, shape)
    packed, state = F.quantize_4bit(given, blocksize=64, compress_statistics=True, quant_type="nf4")
    theirs = F.dequantize_4bit(packed, state)
    codes, scales = nf4._quantise(given.reshape(-1).float(), nf4._code(nf4._NF4), 64)
    pairs = packed.reshape(-1)
    assert torch.equal(torch.stack([pairs >> 4, pairs & 15], 1).reshape(-1), codes)
    assert torch.equal(state.state2.code, nf4._dynamic_code())
    assert torch.equal(state.offset, scales.mean())
    mine, outer = nf4._quantise(scales - scales.mean(), nf4._dynamic_code(), 256)
    assert torch.equal(state.state2.absmax, outer)
    other = mine != state.absmax.reshape(-1)
    assert other.float().mean() < 0.005
    values = ((scales - scales.mean()) / outer.repeat_interleave(256)[: scales.numel()])[other]
    code = nf4._dynamic_code()
    between = (code[mine[other].long()] + code[state.absmax.reshape(-1)[other].long()]) / 2
    assert (values - between).abs().max() < 2**-15 if other.any() else True
    same = ~other.repeat_interleave(64)[: given.numel()]
    assert torch.equal(nf4.round_trip(given).reshape(-1)[same], theirs.reshape(-1)[same])
