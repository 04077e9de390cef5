"""What a QLoRA run saw of a base weight: bitsandbytes' NF4 with double quantisation, there and back.

Blocks of 64 weights share a scale; 256 scales, their mean taken off, share a second one. This is the arithmetic of
bitsandbytes' CUDA kernels in plain torch, so that a merge needs neither a GPU nor bitsandbytes. Its CPU kernel looks
the nearest scale up in a table and takes the other neighbour of about one in a thousand (tests/export/test_nf4.py).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK, SCALE_BLOCK = 64, 256
_ROWS = 2**22  # weights quantised at once: float32 copies of a whole 8B layer would be hundreds of MB
# quantiles of a normal distribution, from QLoRA (Dettmers et al. 2023), appendix E
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def round_trip(weight: Tensor) -> Tensor:
    """`weight` quantised and dequantised, in its own dtype: exactly what the matrix products of training used."""
    import torch

    flat = weight.reshape(-1)
    codes, scales = [], []
    for part in flat.split(_ROWS):
        code, scale = _quantise(part.to(torch.float32), _code(_NF4), BLOCK)
        codes.append(code)
        scales.append(scale)
    scale = _scales_round_trip(torch.cat(scales))
    found, at = torch.empty_like(flat), 0
    for code in codes:
        count = code.numel()
        blocks = scale[at // BLOCK : -(-(at + count) // BLOCK)]
        values = _code(_NF4)[code.long()] * blocks.repeat_interleave(BLOCK)[:count]
        found[at : at + count] = values.to(weight.dtype)
        at += count
    return found.reshape(weight.shape)


def _scales_round_trip(scales: Tensor) -> Tensor:
    offset = scales.mean()
    code, outer = _quantise(scales - offset, _dynamic_code(), SCALE_BLOCK)
    return _dynamic_code()[code.long()] * outer.repeat_interleave(SCALE_BLOCK)[: scales.numel()] + offset


def _quantise(values: Tensor, code: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """uint8 indices into `code`, and one float32 scale a block: its largest magnitude."""
    import torch

    count = values.numel()
    blocks = torch.nn.functional.pad(values, (0, -count % block)).reshape(-1, block)
    scale = blocks.abs().amax(dim=1)
    inverse = 1.0 / scale.clamp(min=1e-38)
    scaled = torch.clamp(blocks * inverse[:, None], -1, 1).reshape(-1)[:count]
    bounds = (code[:-1] + code[1:]) / 2
    return torch.bucketize(scaled, bounds, out_int32=True).to(torch.uint8), scale


@cache
def _code(values: tuple[float, ...]) -> Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32)


@cache
def _dynamic_code() -> Tensor:
    """bitsandbytes' signed 8-bit dynamic map: seven decades with 1, 2, 4 .. 64 steps each, 0 and 1."""
    import torch

    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
        means = (edges[:-1] + edges[1:]) / 2.0
        values += ((10 ** (exponent - 6)) * means).tolist()
        values += (-(10 ** (exponent - 6)) * means).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)
