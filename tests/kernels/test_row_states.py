"""Short convolutions and gated delta rules over packed rows: what each row alone gives, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_5 import modeling_qwen3_5

from toolkit.kernels.row_states import closed_conv, closed_delta

conv = modeling_qwen3_5.causal_conv1d_fn.__wrapped__  # PyTorch's, whatever is installed
delta = modeling_qwen3_5.torch_chunk_gated_delta_rule.__wrapped__
SIZES = st.lists(st.sampled_from([1, 2, 3, 20, 64, 65, 130]), min_size=1, max_size=5)


def rows_of(sizes: list[int]) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))[None].int()


def edges_of(sizes: list[int], repeated: int = 0) -> torch.Tensor:
    edges = torch.tensor([0, *sizes]).cumsum(0)
    return torch.cat([edges, edges[-1:].expand(repeated)]).int()


@settings(max_examples=25)
@given(sizes=SIZES, taps=st.sampled_from([1, 3, 4]), activation=st.sampled_from([None, "silu"]), bias=st.booleans())
def test_a_convolution_does_not_reach_over_an_edge(
    sizes: list[int], taps: int, activation: str | None, bias: bool
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, 8, sum(sizes), requires_grad=True), torch.randn(8, taps)
    shift = torch.randn(8) if bias else None
    found = closed_conv(conv)(hidden, weight, shift, activation=activation, seq_idx=rows_of(sizes))
    alone = torch.cat([conv(row, weight, shift, activation=activation) for row in hidden.split(sizes, -1)], -1)
    torch.testing.assert_close(found, alone)
    over = torch.randn_like(alone)
    mine, theirs = (torch.autograd.grad(out, hidden, over)[0] for out in (found, alone))
    torch.testing.assert_close(mine, theirs)


@settings(max_examples=15)
@given(sizes=SIZES, repeated=st.integers(0, 2), told=st.booleans())
def test_a_state_begins_anew_with_each_row(sizes: list[int], repeated: int, told: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, sum(sizes), 2, 4, requires_grad=True) for _ in range(3))
    g, beta = -torch.rand(1, sum(sizes), 2), torch.rand(1, sum(sizes), 2)
    how: dict[str, Any] = {"use_qk_l2norm_in_kernel": True}
    known = {"sizes": sizes} if told else {}
    found, state = closed_delta(delta)(
        query, key, value, g=g, beta=beta, cu_seqlens=edges_of(sizes, repeated), **known, **how
    )
    assert state is None
    parts = zip(*(part.split(sizes, 1) for part in (query, key, value, g, beta)), strict=True)
    alone = torch.cat([delta(*row, **how)[0] for row in parts], 1)
    torch.testing.assert_close(found, alone)
    over = torch.randn_like(alone)
    for part in (query, key, value):
        mine, theirs = (torch.autograd.grad(out, part, over, retain_graph=True)[0] for out in (found, alone))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_what_keeps_to_edges_is_called_with_them() -> None:
    """As the packages' functions are; and what takes edges but does not keep to them is not believed."""
    calls: list[str] = []

    def keeps(hidden: Any, weight: Any, bias: Any = None, *, activation: Any, seq_idx: Any) -> Any:
        calls.append("conv")
        sizes = torch.unique_consecutive(seq_idx, return_counts=True)[1].tolist()
        return torch.cat([conv(row, weight, bias, activation) for row in hidden.split(sizes, -1)], -1)

    def rule(query: Any, key: Any, value: Any, g: Any, beta: Any, *, cu_seqlens: Any = None, **how: Any) -> Any:
        sizes = [value.shape[1]] if cu_seqlens is None else cu_seqlens.diff().tolist()
        calls.append("delta" if cu_seqlens is not None else "alone")
        parts = zip(*(part.split(sizes, 1) for part in (query, key, value, g, beta)), strict=True)
        return torch.cat([delta(*row, **how)[0] for row in parts], 1), None

    def leaks(hidden: Any, weight: Any, bias: Any = None, *, activation: Any, seq_idx: Any) -> Any:
        calls.append("leaks")
        return conv(hidden, weight, bias, activation)

    hidden, weight, rows = torch.randn(1, 8, 12), torch.randn(8, 3), rows_of([5, 7])
    for function in (keeps, leaks):
        closed_conv(function)(hidden, weight, None, activation=None, seq_idx=rows)
    assert calls == ["conv", "conv", "leaks"]  # each was tried, and one of them used
    calls.clear()
    query, key, value = (torch.randn(1, 12, 2, 4) for _ in range(3))
    g, beta = -torch.rand(1, 12, 2), torch.rand(1, 12, 2)
    closed_delta(rule)(query, key, value, g=g, beta=beta, cu_seqlens=edges_of([5, 7]), use_qk_l2norm_in_kernel=True)
    assert calls.count("delta") == 2 and calls[-1] == "delta"


@pytest.mark.parametrize("family", ["lfm2", "qwen3_5_text"])
def test_a_model_is_as_it_was_afterwards(family: str) -> None:
    import importlib

    from transformers import AutoConfig, AutoModelForCausalLM

    from toolkit.kernels.row_states import closed, lacking
    from toolkit.models.families import FAMILIES

    kind = next(iter(FAMILIES[family].row_functions))
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    own = {"linear_num_key_heads": 1, "linear_num_value_heads": 1, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    config = AutoConfig.for_model(family, num_hidden_layers=1, layer_types=[kind], intermediate_size=16, **sizes, **own)
    model = AutoModelForCausalLM.from_config(config)
    module = importlib.import_module(type(model).__module__)
    usual = dict(vars(module))
    ids, edges = torch.arange(12)[None], edges_of([5, 7])
    assert lacking(model) is None

    def last(ids: torch.Tensor) -> torch.Tensor:
        given = {"cu_seq_lens": edges, "sizes": [5, 7]}
        hidden: torch.Tensor = model.model(input_ids=ids, use_cache=False, **given).last_hidden_state[0, 5:]
        return hidden

    other = ids.clone()
    other[0, 4] = 40  # the last token of the first row
    with torch.no_grad():
        assert not torch.equal(last(ids), last(other)), "without anything the second row sees the first"
        with closed(model):
            torch.testing.assert_close(last(ids), last(other), rtol=0, atol=0)
    assert {name: value for name, value in vars(module).items() if usual.get(name) is not value} == {}
    assert not model.model._forward_pre_hooks
    delattr(module, "causal_conv1d_fn")
    try:
        assert lacking(model) == f"{module.__name__} has no causal_conv1d_fn; another transformers may"
    finally:
        vars(module)["causal_conv1d_fn"] = usual["causal_conv1d_fn"]
