"""Every Triton kernel compiles for every card that it is used on, Turing among them. Needs Triton and no card."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.planning.cards import CARDS

triton = pytest.importorskip("triton", reason="Triton comes with torch for cards; `pip install triton` brings it alone")
CAPABILITIES = sorted({card.capability for card in CARDS.values() if card.capability >= (7, 5)})
CROSS_ENTROPY = {"labels": "*i64", "losses": "*fp32", "row_stride": "i64"}
ROUND_ROWS = {"out": "*fp8e4nv", "scales": "*fp32", "a_row": "i64", "b_row": "i64", "c_row": "i64"}
SIZES = {"A": 2048, "B": 1024, "C": 1024, "WIDE_A": 2048, "WIDE_B": 1024, "WIDE_C": 1024, "MOST": 448.0, "LEAST": 1e-12}


def compiled(name: str, capability: tuple[int, int], types: dict[str, str], constants: dict[str, Any]) -> Any:
    """A kernel for a card; Triton takes FMA in place of tensor cores where a card has none for it, and says so in
    nothing but the code."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from toolkit.kernels import triton_kernels

    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(getattr(triton_kernels, name), signature, constexprs=constants)
    major, minor = capability
    return triton.compile(source, target=GPUTarget("cuda", 10 * major + minor, 32), options={"num_warps": 8})


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("type", ["fp16", "fp32", "bf16"])
@pytest.mark.parametrize("gradient", [True, False])
def test_cross_entropy(capability: tuple[int, int], type: str, gradient: bool) -> None:
    from toolkit.kernels.head_loss import WIDE

    constants = {"COLUMNS": 151_936, "GRADIENT": gradient, "WIDE": WIDE}
    found = compiled("cross_entropy", capability, {"logits": f"*{type}", **CROSS_ENTROPY}, constants)
    assert found.asm["cubin"] and "tt.dot" not in found.asm["ttir"]


@pytest.mark.parametrize("type", ["fp16", "bf16"])
def test_rows_in_float8_on_the_cards_that_have_it_alone(type: str) -> None:
    from triton import CompilationError

    from toolkit.kernels.constants import FLOAT8_CAPABILITY

    types = {**dict.fromkeys("abc", f"*{type}"), **ROUND_ROWS}
    for capability in CAPABILITIES:
        if capability >= FLOAT8_CAPABILITY:
            assert compiled("round_rows", capability, types, SIZES).asm["cubin"]
        else:
            with pytest.raises(CompilationError, match="fp8e4nv not supported"):
                compiled("round_rows", capability, types, SIZES)


def test_there_are_no_other_kernels() -> None:
    from toolkit.kernels import triton_kernels

    kernels = {name for name, one in vars(triton_kernels).items() if isinstance(one, triton.JITFunction)}
    assert kernels == {"cross_entropy", "round_rows"}
