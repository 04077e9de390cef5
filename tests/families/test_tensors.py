"""Names of weights in a GGUF, and rows there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.models.families import FAMILIES, KNOWN
from toolkit.models.shape import ModelShape

LLAMA = FAMILIES["llama"]
EXPORTED = [name for name, family in FAMILIES.items() if family.class_name]


@pytest.mark.parametrize("kind", EXPORTED)
def test_every_weight_has_a_name_of_its_own(kind: str) -> None:
    for shape in FAMILIES[kind].known():
        names = FAMILIES[kind].gguf_names(shape)
        assert set(names) == set(shape.weights()) and len(set(names.values())) == len(names)


def test_names_as_llama_cpp_has_them() -> None:
    names = FAMILIES["qwen3"].gguf_names(KNOWN["Qwen/Qwen3-8B"])
    assert names["model.embed_tokens.weight"] == "token_embd.weight" and names["lm_head.weight"] == "output.weight"
    assert names["model.norm.weight"] == "output_norm.weight"
    inside = {name.removeprefix("model.layers.35."): short for name, short in names.items() if ".35." in name}
    assert inside == {
        "self_attn.q_proj.weight": "blk.35.attn_q.weight",
        "self_attn.k_proj.weight": "blk.35.attn_k.weight",
        "self_attn.v_proj.weight": "blk.35.attn_v.weight",
        "self_attn.o_proj.weight": "blk.35.attn_output.weight",
        "mlp.gate_proj.weight": "blk.35.ffn_gate.weight",
        "mlp.up_proj.weight": "blk.35.ffn_up.weight",
        "mlp.down_proj.weight": "blk.35.ffn_down.weight",
        "input_layernorm.weight": "blk.35.attn_norm.weight",
        "post_attention_layernorm.weight": "blk.35.ffn_norm.weight",
        "self_attn.q_norm.weight": "blk.35.attn_q_norm.weight",
        "self_attn.k_norm.weight": "blk.35.attn_k_norm.weight",
    }


def test_what_llama_cpp_has_no_name_for() -> None:
    shape = KNOWN["Qwen/Qwen3-0.6B"]
    with pytest.raises(KeyError, match="q_norm"):
        LLAMA.gguf_names(shape)


@given(st.integers(1, 6), st.integers(1, 8), st.booleans())
def test_rows_there_and_back(heads: int, half: int, bias: bool) -> None:
    import torch

    rows = heads * 2 * half
    shape = ModelShape("llama", rows, 8, 1, heads, heads, 2 * half, 8, True)
    name = f"model.layers.0.self_attn.k_proj.{'bias' if bias else 'weight'}"
    weight = torch.arange(rows * 3.0).reshape(rows, 3) if not bias else torch.arange(float(rows))
    moved = LLAMA.to_gguf(name, weight, shape, {})
    assert torch.equal(LLAMA.from_gguf(name, moved, shape, {}), weight)
    # row i of a head's first half is followed by row i of its second half
    first = moved.reshape(heads, rows // heads, -1)[:, :, 0]
    plain = weight.reshape(heads, rows // heads, -1)[:, :, 0]
    assert torch.equal(first[:, 0::2], plain[:, :half]) and torch.equal(first[:, 1::2], plain[:, half:])
    assert LLAMA.to_gguf("model.layers.0.self_attn.v_proj.weight", weight, shape, {}) is weight
