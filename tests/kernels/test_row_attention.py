"""Attention within packed rows, as an operator: what each row alone gives, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from toolkit.kernels.packed_attention import attend
from toolkit.kernels.row_attention import attend_rows

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def made(sizes: list[int], heads: int, shared: int, size: int = 8) -> Tensors:
    torch.manual_seed(len(sizes))
    tokens = sum(sizes)
    q, k, v = (torch.randn(tokens, count, size, requires_grad=True) for count in (heads, shared, shared))
    return q, k, v


def alone(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sizes: list[int], scale: float, window: int = 0
) -> torch.Tensor:
    parts = []
    for rows in zip(*(part.split(sizes) for part in (q, k, v)), strict=True):
        of, among, values = (part.transpose(0, 1)[None] for part in rows)
        place = torch.arange(of.shape[2])
        before = place[:, None] - place
        seen = (before >= 0) & (before < (window or len(place)))
        out = scaled_dot_product_attention(of, among, values, attn_mask=seen, scale=scale, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    groups=st.sampled_from([1, 2, 3]),
    shared=st.sampled_from([1, 2]),
    repeated=st.integers(0, 3),
    window=st.integers(0, 12),
)
def test_rows_attend_as_if_alone(sizes: list[int], groups: int, shared: int, repeated: int, window: int) -> None:
    given_ = made(sizes, groups * shared, shared)
    edges = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist(), *[sum(sizes)] * repeated], dtype=torch.int32)
    out, _ = attend_rows(*given_, edges, max(sizes), 0.3, window)
    expected = alone(*given_, sizes, 0.3, window)
    torch.testing.assert_close(out, expected)
    q, k, v = (part.transpose(0, 1)[None] for part in given_)
    for told in ({"sizes": sizes}, {"longest": max(sizes)}):  # run as it is, and as a compiled layer hands it on
        found, _ = attend(None, q, k, v, None, cu_seq_lens=edges, scaling=0.3, sliding_window=window or None, **told)
        torch.testing.assert_close(found[0], expected)
    gradient = torch.randn_like(out)
    mine = torch.autograd.grad(out, given_, gradient)
    theirs = torch.autograd.grad(expected, given_, gradient)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_operator_is_one_for_the_compiler(dynamic: bool) -> None:
    given_ = made([5, 9], 4, 2)
    edges = torch.tensor([0, 5, 14], dtype=torch.int32)
    torch.library.opcheck(attend_rows, (*given_, edges, 9, 0.3, 4))
    compiled = torch.compile(
        lambda *parts: attend_rows(*parts, edges, 9, 0.3, 4)[0] * 2,
        backend="aot_eager",
        fullgraph=True,
        dynamic=dynamic,
    )
    torch.testing.assert_close(compiled(*given_), attend_rows(*given_, edges, 9, 0.3, 4)[0] * 2)
