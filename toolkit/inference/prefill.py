"""Prompts read a few at a time into one cache, which a CPU then decodes all of together.

Reading wants few tokens at a time, that what is computed between layers stays in the caches; a decoding step reads all
weights for however few rows it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

# Prompt tokens at a time: with more, 16 prompts of unlike length take twice the time.
AT_ONCE = 2048
CACHE_BYTES = 1 << 29  # of keys and values that are decoded from together


def can_prefill(model: Any) -> bool:
    """Whether all layers of a causal LM (without a PEFT wrapper) keep keys and values of all tokens, and no more."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and bool(getattr(model, "_supports_attention_backend", False))


def rows_at_once(model: Any, tokens: int) -> int:
    """How many rows of so many tokens, with those to come, are decoded together on a CPU."""
    if not can_prefill(model):
        return max(1, AT_ONCE // tokens)
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * shared * head * model.get_input_embeddings().weight.element_size()
    return max(1, AT_ONCE // tokens, CACHE_BYTES // (tokens * a_token))


def prefill(model: Any, ids: Sequence[list[int]], pad: int) -> Any:
    """A cache of all tokens of each row but its last, padded on the left to the longest; None for rows of one token.

    ids: rows, the longest first, so that those read together are of like length.
    """
    import torch
    from torch.nn.functional import pad as padded
    from transformers import DynamicCache

    longest = max(map(len, ids)) - 1
    if longest < 1:
        return None
    device = model.get_input_embeddings().weight.device
    decoder = getattr(model, model.base_model_prefix)
    parts: list[list[Any]] = []
    with torch.no_grad():
        for rows in _together(ids):
            width = max(1, *(len(row) - 1 for row in rows))
            fill = [width - (len(row) - 1) for row in rows]
            tokens = [[pad] * left + row[:-1] for left, row in zip(fill, rows, strict=True)]
            mask = torch.tensor([[0] * left + [1] * (width - left) for left in fill], device=device)
            read = decoder(
                input_ids=torch.tensor(tokens, device=device),
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=DynamicCache(),
                use_cache=True,
            ).past_key_values
            parts.append([(layer.keys, layer.values) for layer in read.layers])
        whole = DynamicCache()
        for number in range(len(parts[0])):
            layers = [part[number] for part in parts]
            keys, values = (
                torch.cat([padded(one[which], (0, 0, longest - one[which].shape[2], 0)) for one in layers])
                for which in (0, 1)
            )
            for part in parts:
                part[number] = ()  # its memory is wanted for the next layer's
            whole.update(keys, values, number)
    return whole


def _together(ids: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Rows in their order, as many at a time as `AT_ONCE` tokens hold."""
    start = 0
    while start < len(ids):
        count = max(1, AT_ONCE // max(1, len(ids[start])))
        yield list(ids[start : start + count])
        start += count
