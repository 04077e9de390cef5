"""Hugging Face folders of GGUF files: weights in bfloat16, a config and a tokenizer with its template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.gguf_raw import RawGguf, read_bytes, read_raw
from toolkit.models.families.base import Family
from toolkit.versions import version_of

NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # types of tokens in a GGUF
BLANK = "▁"  # what SentencePiece has for a blank


def smollm2(gguf: Path, folder: Path) -> None:
    """Write the folder of a SmolLM2."""
    from transformers import LlamaConfig

    from toolkit.models.families.llama import Llama

    raw, family = read_raw(gguf), Llama()
    _require(raw, family)
    tokenizer = _smollm2_tokenizer(raw)

    def value(key: str) -> Any:
        return raw.value(f"{family.gguf_arch}.{key}")

    config = LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("rope.freq_base")},
        tie_word_embeddings="output.weight" not in (tensor.name for tensor in raw.tensors),
        dtype="bfloat16",
        _model_name_or_path=raw.text("general.name"),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        unk_token_id=tokenizer.unk_token_id,
    )
    config.save_pretrained(folder)
    _save_weights(raw, family, config.to_dict(), folder)
    ids = {f"{name}_token_id": getattr(config, f"{name}_token_id") for name, _ in TOKEN_IDS}
    (folder / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def _require(raw: RawGguf, family: Family) -> None:
    if (kind := raw.text("general.architecture")) != family.gguf_arch:
        raise ModelError(f"{raw.path.name}: a {kind}, wanted {family.gguf_arch}")


def _save_weights(raw: RawGguf, family: Family, config: dict[str, Any], folder: Path) -> None:
    """Write a GGUF's tensors to model.safetensors in bfloat16, by their names and orders in transformers."""
    import torch
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    shape = family.shape(config, raw.path.name)
    places = {tensor.name: tensor for tensor in raw.tensors}
    sizes, weights = shape.weights(), {}
    with raw.path.open("rb") as file:
        for name, (part,) in family.gguf_parts(shape).items():
            tensor = places[part.name]
            quant = GGMLQuantizationType(tensor.kind)
            block, size = GGML_QUANT_SIZES[quant]
            rows = (*tensor.shape[:-1], tensor.shape[-1] // block * size)
            values = dequantize(read_bytes(file, tensor.offset, prod(rows)).reshape(rows), quant).reshape(sizes[name])
            weight = family.from_gguf(name, torch.from_numpy(values), shape, config)
            weights[name] = weight.to(torch.bfloat16).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _smollm2_tokenizer(raw: RawGguf) -> Any:
    """The tokenizer of a GGUF with byte-level BPE and llama.cpp's `smollm` pre-tokenizer.

    Built from the file's own lists, because transformers 5.17's GGUF tokenizer takes <|im_start|> for the end token and
    leaves the control tokens unmarked. The pre-tokenizer is llama.cpp's: every digit alone, then GPT-2's pattern.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def value(key: str) -> Any:
        return raw.value(f"tokenizer.ggml.{key}")

    if (kind := (value("model"), value("pre"))) != ("gpt2", "smollm"):
        raise ModelError(f"{raw.path.name}: tokenizer {kind} is not one this reader knows: ('gpt2', 'smollm')")
    tokens, types = value("tokens"), value("token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in value("merges")]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    eos = tokens[value("eos_token_id")]
    unknown = tokens[value("unknown_token_id")]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[value("bos_token_id")],
        eos_token=eos,
        unk_token=unknown,
        # the file says pad = eos; then the end token would be masked as padding and the model would never stop
        pad_token=unknown,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    tokenizer.chat_template = raw.text("tokenizer.chat_template")
    return tokenizer


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% set role = message['role'] %}"
    "{% set role = {'assistant': 'model', 'system': 'developer'}.get(role, role) %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Gemma's turns, for a base model that came without a template; a system turn as FunctionGemma has it."""
GEMMA_END = "<end_of_turn>"


def gemma3(gguf: Path, folder: Path) -> None:
    """Write the folder of a Gemma 3's text model."""
    from toolkit.models.families.gemma3 import Gemma3

    raw, family = read_raw(gguf), Gemma3()
    _require(raw, family)
    kind = family.gguf_arch
    config = family.config_of(
        {key.removeprefix(f"{kind}."): raw.value(key) for key in raw.keys if key.startswith(kind)}
    )
    tokens = raw.value("tokenizer.ggml.tokens")
    config |= {
        "vocab_size": len(tokens),
        "dtype": "bfloat16",
        "transformers_version": version_of("transformers"),  # or its tokenizer is taken for one of Mistral's
        **{f"{name}_token_id": raw.value(f"tokenizer.ggml.{long}_token_id") for name, long in TOKEN_IDS},
    }
    _save_weights(raw, family, config, folder)
    config["eos_token_id"] = [config["eos_token_id"], tokens.index(GEMMA_END)]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    ids = {f"{name}_token_id": config[f"{name}_token_id"] for name, _ in TOKEN_IDS}
    (folder / "generation_config.json").write_text(json.dumps(ids, indent=2) + "\n")
    _sentencepiece(raw, config["max_position_embeddings"]).save_pretrained(folder)


TOKEN_IDS = (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))


def _sentencepiece(raw: RawGguf, length: int) -> Any:
    """The tokenizer of a GGUF that has SentencePiece's, as transformers' Gemma is: merges of every way to split a token
    in two tokens, the better the score of what they make the earlier."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def value(key: str) -> Any:
        return raw.value(f"tokenizer.ggml.{key}")

    if value("model") != "llama":
        raise ModelError(f"tokenizer {value('model')} is not SentencePiece's")
    types = value("token_type")
    tokens = [
        token.replace(" ", BLANK) if kind == USER else token for token, kind in zip(value("tokens"), types, strict=True)
    ]
    vocabulary = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    backend = Tokenizer(
        models.BPE(
            vocabulary,
            merges_of(tokens, types, value("scores")),
            unk_token=tokens[value("unknown_token_id")],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Replace(" ", BLANK)
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    added = [number for number, kind in enumerate(types) if kind in (CONTROL, USER)]
    backend.add_tokens([AddedToken(tokens[n], special=types[n] == CONTROL, normalized=False) for n in added])
    bos = tokens[value("bos_token_id")]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, value("bos_token_id"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=tokens[value("eos_token_id")],
        unk_token=tokens[value("unknown_token_id")],
        pad_token=tokens[value("padding_token_id")],
        clean_up_tokenization_spaces=False,
        model_max_length=length,
    )
    template = raw.value("tokenizer.chat_template")
    tokenizer.chat_template = template or GEMMA_TEMPLATE
    return tokenizer


def merges_of(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges of SentencePiece's tokens by their scores, which a GGUF has in their place.

    Runs of one character that stand among the user's own tokens have no score and are merged first, the longer first,
    as in Gemma's own tokenizer.json.
    """
    vocabulary = {token: number for number, token in enumerate(tokens)}
    found: list[tuple[tuple[float, ...], str, str]] = []
    for token, number in vocabulary.items():
        if types[number] not in (NORMAL, USER):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left not in vocabulary or right not in vocabulary:
                continue
            places = vocabulary[left], vocabulary[right]
            if types[number] == NORMAL:
                order: tuple[float, ...] = (1, -scores[number], *places)
            else:
                order = (0, -cut, -len(token), number) if len(set(token)) == 1 else (2, number, *places)
            found.append((order, left, right))
    found.sort()
    return [(left, right) for _, left, right in found]
