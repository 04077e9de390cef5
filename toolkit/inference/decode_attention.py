"""Attention of one new token on a CPU, where torch's fused kernel takes half the time of a decoding step.

Registered with transformers under a name of its own and used only while decoding; longer inputs (the prompts) go to
torch's kernel as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ONE_TOKEN = "toolkit_one_token"


@contextmanager
def fast_decoding(model: Any) -> Iterator[None]:
    """Let a transformers model on a CPU use it for the block, if it has the usual SDPA attention; else change nothing.

    model: without a PEFT wrapper.
    """
    config = model.config
    usual = getattr(config, "_attn_implementation", None)
    on_cpu = model.get_input_embeddings().weight.device.type == "cpu"
    if not on_cpu or usual != "sdpa" or not getattr(model, "_supports_attention_backend", False):
        yield
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ONE_TOKEN, attend)
    AttentionMaskInterface.register(ONE_TOKEN, sdpa_mask)
    config._attn_implementation = ONE_TOKEN
    try:
        yield
    finally:
        config._attn_implementation = usual


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """query [rows, heads, tokens, size], key and value [rows, heads or a divisor, all tokens, size], mask boolean
    [rows, 1, tokens, all tokens] or None. Returns [rows, tokens, heads, size] and None for the probabilities.

    With one token the heads that share a key stand beside each other as rows of one product, in float32.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    masked = attention_mask is not None and attention_mask.dtype != torch.bool
    if query.shape[2] != 1 or masked or kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    rows, heads, _, size = query.shape
    shared = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    grouped = query.view(rows, shared, heads // shared, size).float()
    scores = grouped @ key.float().transpose(2, 3) * scale
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    found = scores.softmax(dim=-1) @ value.float()
    return found.to(query.dtype).reshape(rows, 1, heads, size), None
