"""Floating-point operations of training. A product of an m x k by a k x n matrix counts 2mkn.

Frozen weights cost a forward product and the product for the gradient of its input, but none for their own gradient.
"""

from __future__ import annotations

from toolkit.models.shape import ModelShape


def attention_flops(shape: ModelShape, width: float) -> float:
    """Forward FLOPs of attention for one token, averaged over a causal row of `width` tokens (scores and values)."""
    return 4 * shape.num_hidden_layers * shape.attention_size * (width + 1) / 2


def training_flops(
    shape: ModelShape, tokens: float, width: int, trained: float, adapter: int, *, checkpointing: float
) -> float:
    """FLOPs of forward, recomputation and backward with a LoRA of `adapter` parameters over frozen weights.

    `tokens` counts padding too, `width` is the row length that attention sees, `trained` the tokens with a label.
    `checkpointing`: the share of the layers that run forward again.
    Per token: frozen weights 2 forward + 2 backward (+ 2 recomputed) each, adapter weights 2 + 4 (+ 2), attention
    1 + 2.5 (+ 1) times its forward; the head runs forward and backward for trained tokens only.
    """
    again = checkpointing
    linear = (4 + 2 * again) * shape.linear_parameters + (6 + 2 * again) * adapter
    attention = (3.5 + again) * attention_flops(shape, width)
    return tokens * (linear + attention) + trained * 4 * shape.head_parameters
