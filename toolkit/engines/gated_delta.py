"""What layers with a gated delta rule (Qwen3.5) keep for their backward pass, and what a plan says of their time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from toolkit.engines.base import is_installed

if TYPE_CHECKING:
    from toolkit.models.shape import Layer, ModelShape

CHUNK = 64  # tokens that a rule takes at one time, in transformers and in flash-linear-attention


class Delta(NamedTuple):
    """The share of a model's layers that have such a rule, and the bytes for each token that the rule keeps in one,
    with its projections, convolution and norm."""

    share: float
    bytes: float


def delta_of(shape: ModelShape) -> Delta | None:
    """Of a model that has such layers; None of others. Heads of keys are as wide as those of values, as published
    models have them."""
    layers = shape.each_layer()
    recurring = [layer for layer in layers if any(name.startswith("linear_attn.") for name, _, _ in layer.linears)]
    if not recurring:
        return None
    rule = _fast if _has_fast() else _slow
    return Delta(len(recurring) / len(layers), rule(shape.hidden_size, *_heads(recurring[0])))


def untimed(shape: ModelShape) -> str | None:
    """What a predicted time leaves out, in a line; None for a model without such layers."""
    if delta_of(shape) is None:
        return None
    if _has_fast():
        return "without what its gated delta rules take, which was not measured with flash-linear-attention"
    # Qwen3.5-0.8B's shape: docs/benchmarks/2026-11-30-families.md
    return (
        "without PyTorch's gated delta rules: an H200 took 4 and 7 times as long (faster: pip install -e '.[hybrid]')"
    )


def _slow(hidden: int, heads: int, size: int) -> float:
    """PyTorch's way in transformers 5.17, in 16 bits: inputs in fp32, their products with decays in fp32 and as matrix
    products have them, a state a chunk, and of each head's chunk the squares of its tokens. Counted on a CPU under
    autocast, by tests/planning/test_gated_delta.py too."""
    state = 8 * size * size / CHUNK
    return 8.3 * hidden + heads * ((45.2 + 32.2) * size + 930 + state)


def _fast(hidden: int, heads: int, size: int) -> float:
    """A prediction from what flash-linear-attention's function saves, and the convolution and the norm around it in 16
    bits: not measured."""
    return 8.3 * hidden + heads * (4 * 3 * size + 8 * size + 2 * CHUNK + 8)


@functools.cache
def _has_fast() -> bool:
    return is_installed("fla")


def _heads(layer: Layer) -> tuple[int, int]:
    """(heads of values, numbers in each)."""
    outs = {name: out for name, _, out in layer.linears}
    heads = outs["linear_attn.in_proj_b"]
    return heads, outs["linear_attn.in_proj_z"] // heads
