"""Unsloth's dispatcher is asked for everything but packed rows that it would run one by one."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from toolkit.engines.unsloth import closed_rows
from toolkit.kernels.row_attention import attend_rows

SIZES = [5, 9, 2]
EDGES = torch.tensor([0, 5, 14, 16], dtype=torch.int32)


def context(**other: Any) -> SimpleNamespace:
    known = {"attention_mask": None, "sliding_window": None, "is_causal": True, "prefix_seg_info": None}
    return SimpleNamespace(**{**known, "seq_info": (torch.tensor(SIZES), EDGES, max(SIZES)), **other})


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that binds the name as Unsloth's model files do."""
    module = ModuleType("unsloth.models.qwen3")
    module.run_attention = lambda *, config, context, Q, K, V: "own"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_packed_rows_attend_as_rows(dispatcher: ModuleType) -> None:
    q, k, v = (torch.randn(1, heads, 16, 8) for heads in (4, 2, 2))
    sdpa = SimpleNamespace(backend="sdpa")
    with closed_rows(None):
        found = dispatcher.run_attention(config=sdpa, context=context(), Q=q, K=k, V=v)
    expected, _ = attend_rows(*(part[0].transpose(0, 1) for part in (q, k, v)), EDGES, max(SIZES), 8**-0.5)
    torch.testing.assert_close(found, expected[None])
    assert dispatcher.run_attention(config=sdpa, context=context(), Q=q, K=k, V=v) == "own"


@pytest.mark.parametrize(
    ("backend", "other"),
    [
        ("xformers", {}),
        ("flash_varlen", {}),
        ("sdpa", {"seq_info": None}),
        ("sdpa", {"sliding_window": 4}),
        ("sdpa", {"attention_mask": torch.ones(1, 16)}),
        ("sdpa", {"is_causal": False}),
        ("sdpa", {"prefix_seg_info": object()}),
    ],
)
def test_the_rest_is_unsloth_s(dispatcher: ModuleType, backend: str, other: dict[str, Any]) -> None:
    with closed_rows(None):
        found = dispatcher.run_attention(
            config=SimpleNamespace(backend=backend), context=context(**other), Q=None, K=None, V=None
        )
    assert found == "own"
