"""A model that answers every prompt with one text: it looks at the last token alone, and each has one successor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tests.tiny import make_tokenizer

PIECE = 5  # characters, at least; more where a piece would come twice


def make_parrot(folder: Path, answer: str, rendering: Any = None) -> Path:
    """A tiny Llama in `folder` that writes `answer` and ends its turn, under ChatML with a call format's template."""
    import torch
    from tokenizers import AddedToken
    from transformers import LlamaConfig, LlamaForCausalLM

    from toolkit.data.compose import compose

    tokenizer = make_tokenizer(["some text"])
    if rendering is not None:
        tokenizer.chat_template = compose(tokenizer, rendering)
    pieces = _pieces(answer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in pieces])
    opened = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"][-1]
    chain = [opened, *tokenizer.convert_tokens_to_ids(pieces), tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert len(set(chain)) == len(chain)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        head_dim=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()
        places = torch.nn.functional.normalize(torch.randn(len(tokenizer), 256), dim=1)
        model.model.embed_tokens.weight.copy_(places)
        for before, after in itertools.pairwise(chain):
            model.lm_head.weight[after] = places[before]
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    while start < len(text):
        stop = start + PIECE
        while text[start:stop] in pieces and stop < len(text):
            stop += 1
        pieces.append(text[start:stop])
        start = stop
    return pieces
