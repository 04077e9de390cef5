"""A model folder, or a run's base and adapter, through transformers: one answer at a time, as it is written.

PyTorch are imported where they are used: loading them takes seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from toolkit.data.special_text import prompt_ids


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    stop_ids: Sequence[int],
    hidden_ids: Collection[int] = (),
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[str]:
    """What the model writes after a rendered prompt, piece by piece, without the stop token; greedy at temperature 0.
    Nothing is told of tokens in `hidden_ids`.

    Greedy, and with none hidden, the pieces together are the text that `toolkit.inference.decode.decode` gives. The
    plain loop can be left at any token, which `generate` can't.
    """
    import torch
    from tokenizers.decoders import DecodeStream

    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([prompt_ids(tokenizer, prompt)], device=device)
    draw = torch.Generator(device=device).manual_seed(seed)
    pieces = DecodeStream(skip_special_tokens=False)
    cache = None
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[0, -1].float()
        if temperature:
            token = int(torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=draw))
        else:
            token = int(logits.argmax())
        if token in stop_ids:
            return
        if token not in hidden_ids and (piece := pieces.step(tokenizer.backend_tokenizer, token)):
            yield piece
        ids = torch.tensor([[token]], device=device)
