"""Names there and back, rows there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.export.tensors import _IN_LAYER, _WHOLE, gguf_name, hf_name, permute, unpermute

MODULES = st.one_of(
    st.sampled_from(sorted(_WHOLE)),
    st.builds(
        lambda layer, name: f"model.layers.{layer}.{name}", st.integers(0, 999), st.sampled_from(sorted(_IN_LAYER))
    ),
)


@given(MODULES, st.sampled_from(["weight", "bias"]))
def test_names_there_and_back(module: str, kind: str) -> None:
    name = f"{module}.{kind}"
    assert hf_name(gguf_name(name)) == name


@given(st.lists(MODULES, unique=True))
def test_no_two_weights_have_one_name(modules: list[str]) -> None:
    assert len({gguf_name(f"{module}.weight") for module in modules}) == len(modules)


def test_names_agree_with_the_official_map() -> None:
    import gguf

    for arch in (gguf.MODEL_ARCH.LLAMA, gguf.MODEL_ARCH.QWEN3):
        names = gguf.get_tensor_name_map(arch, 4)
        for module in [*_WHOLE, *(f"model.layers.3.{name}" for name in _IN_LAYER)]:
            if arch == gguf.MODEL_ARCH.LLAMA and module.endswith(("q_norm", "k_norm")):
                continue
            assert names.get_name(f"{module}.weight", (".weight",)) == gguf_name(f"{module}.weight")


@pytest.mark.parametrize("name", ["model.layers.0.mlp.gate.weight", "model.rotary.weight", "lm_head"])
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(KeyError):
        gguf_name(name)


@given(st.integers(1, 6), st.integers(1, 8), st.booleans())
def test_rows_there_and_back(heads: int, half: int, bias: bool) -> None:
    import torch

    rows = heads * 2 * half
    weight = torch.arange(rows * 3.0).reshape(rows, 3) if not bias else torch.arange(float(rows))
    moved = permute(weight, heads)
    assert torch.equal(unpermute(moved, heads), weight)
    # row i of a head's first half is followed by row i of its second half
    first = moved.reshape(heads, rows // heads, -1)[:, :, 0]
    plain = weight.reshape(heads, rows // heads, -1)[:, :, 0]
    assert torch.equal(first[:, 0::2], plain[:, :half]) and torch.equal(first[:, 1::2], plain[:, half:])
