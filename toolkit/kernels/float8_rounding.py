"""Rows of numbers in float8 with a scale for each row, as one operator that torch.compile leaves whole.

Left to itself Inductor makes two kernels of it that read everything again, and for parts side by side computes what all
of them come from for each: measured at three times the time of reading once. Here a row stays in registers while its
largest value is found.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

EIGHT = torch.float8_e4m3fn
LARGEST = torch.finfo(EIGHT).max
SMALLEST = 1e-12  # scale of a row of zeros
PARTS = 3  # that the kernel takes side by side
WARP = 1024  # values of a row for each warp of 32 threads


@torch.library.custom_op("toolkit::round_rows", mutates_args=())
def round_rows(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(parts [rows, columns] side by side in float8, scales float32 [rows, 1]): the scale times it is within 2^-4.

    A row's scale is its largest magnitude over float8's largest number. What is not a number stays so.
    """
    if parts[0].is_cuda and len(parts) <= PARTS:
        return _on_card(parts)
    wide = torch.cat([part.float() for part in parts], dim=-1)
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(SMALLEST)
    return (wide / scale).clamp(-LARGEST, LARGEST).to(EIGHT), scale


@round_rows.register_fake
def _(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = parts[0].shape[0], sum(part.shape[1] for part in parts)
    first = parts[0]
    return first.new_empty(rows, columns, dtype=EIGHT), first.new_empty(rows, 1, dtype=torch.float32)


def _on_card(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    from toolkit.kernels import triton_kernels as kernels

    parts = [part if part.stride(-1) == 1 else part.contiguous() for part in parts]
    sizes = [part.shape[1] for part in parts]
    rows, columns = parts[0].shape[0], sum(sizes)
    out = torch.empty(rows, columns, dtype=EIGHT, device=parts[0].device)
    scales = torch.empty(rows, 1, device=parts[0].device)
    absent = PARTS - len(parts)
    blocks = [1 << max(size - 1, 0).bit_length() for size in sizes]
    warps = min(max(1, sum(blocks) // WARP), 16)
    kernels.round_rows[(rows,)](
        *parts,
        *[parts[0]] * absent,
        out,
        scales,
        *[part.stride(0) for part in parts],
        *[0] * absent,
        *sizes,
        *[0] * absent,
        *blocks,
        *[1] * absent,
        LARGEST,
        SMALLEST,
        num_warps=warps,
    )
    return out, scales
