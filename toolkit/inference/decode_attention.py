"""Attention of one new token of each row, the heads that share a key beside each other as rows of one product.

On a CPU torch's fused kernel takes half the time of a decoding step; on a GPU transformers would copy keys and values
for every head that shares them. Registered with transformers under a name of its own and used only while decoding;
longer inputs (the prompts) go to torch's kernels.

PyTorch and transformers are imported where they are used: loading them takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ONE_TOKEN = "toolkit_one_token"


@contextmanager
def fast_decoding(model: Any, *, plain: bool) -> Iterator[None]:
    """Let a transformers model use it for the block; on a GPU if it is `plain` (`toolkit.inference.continuous`), on a
    CPU if it has the usual SDPA attention. Other models are left as they are.

    model: without a PEFT wrapper.
    """
    config = model.config
    usual = getattr(config, "_attn_implementation", None)
    on_cpu = model.get_input_embeddings().weight.device.type == "cpu"
    if not plain and (not on_cpu or usual != "sdpa" or not getattr(model, "_supports_attention_backend", False)):
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ONE_TOKEN, attend)
    AttentionMaskInterface.register(ONE_TOKEN, sdpa_mask)
    config._attn_implementation = ONE_TOKEN
    # without cuDNN's, which plans anew for every shape
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    try:
        with contextlib.nullcontext() if on_cpu else sdpa_kernel(kernels):
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

    On a CPU the product of one token is in float32.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    prompts = query.is_cuda and query.shape[2] > 1 and attention_mask is None
    if prompts:  # older cards have no kernel for heads that share keys, and would keep every probability
        shares = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, shares), repeat_kv(value, shares)
        found = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return found.transpose(1, 2).contiguous(), None
    masked = attention_mask is not None and attention_mask.dtype != torch.bool
    if query.shape[2] != 1 or masked or kwargs.get("softcap") or kwargs.get("s_aux") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    rows, heads, _, size = query.shape
    shared = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    grouped = query.view(rows, shared, heads // shared, size)
    if query.is_cuda:
        found = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scale)
        return found.reshape(rows, 1, heads, size), None
    grouped = grouped.float()
    scores = grouped @ key.float().transpose(2, 3) * scale
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    found = scores.softmax(dim=-1) @ value.float()
    return found.to(query.dtype).reshape(rows, 1, heads, size), None
