"""GGUF files: the 16-bit one from a stream of weights, and a copy of a GGUF with other tensor types."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.export.tensors import Weights
from toolkit.export.tokenizer import GgufTokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

Type16 = Literal["F16", "BF16"]
Advance = Callable[[int], None]
F16_MAX = 65504.0
QUANTIZATION_VERSION = 2
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "BF16": 32}
"""llama.cpp's general.file_type."""


class Float16OverflowError(ModelError):
    """A weight is too large for float16."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a GGUF says of itself."""

    name: str
    license: str | None = None
    base_name: str | None = None


def write_gguf(
    path: Path,
    weights: Weights,
    tokenizer: GgufTokenizer,
    metadata: Metadata,
    type16: Type16,
    advance: Advance = lambda count: None,
) -> dict[str, int]:
    """Write a GGUF with 16-bit matrices and float32 vectors; returns how many tensors have which type.

    Norms and biases stay float32, as llama.cpp wants them. `advance` is told the bytes of float32 done.
    Raises `Float16OverflowError` (the file is then not to be used) and `ModelError` for weights that are not finite.
    """
    import gguf
    import torch

    architecture = weights.architecture
    writer = gguf.GGUFWriter(path, architecture.arch)
    add_model(writer, architecture, metadata)
    writer.add_file_type(FILE_TYPES[type16])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    add_tokenizer(writer, tokenizer)
    wide, narrow = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType[type16]
    for name, factors in architecture.rope_factors.items():
        size = len(factors)
        writer.add_tensor_info(name, (size,), np.dtype(np.float32), 4 * size, raw_dtype=wide)
    counts = {"F32": len(architecture.rope_factors), type16: 0}
    for part in (part for parts in architecture.gguf_parts.values() for part in parts):
        kind, width = (wide, 4) if part.wide else (narrow, 2)
        size = int(np.prod(part.shape)) * width
        # a dtype of two bytes whose shape is taken as it is; the kind says which
        dtype = np.dtype(np.float32) if width == 4 else np.dtype(np.float16)
        writer.add_tensor_info(part.name, part.shape, dtype, size, raw_dtype=kind)
        counts[kind.name] += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    try:
        for factors in architecture.rope_factors.values():
            writer.write_tensor_data(np.array(factors, dtype=np.float32))
        for name, parts in architecture.gguf_parts.items():
            whole = architecture.to_gguf(name, weights.read(name))
            size = whole.numel()
            for part in parts:
                tensor = whole[part.rows]
                if part.wide:
                    writer.write_tensor_data(tensor.contiguous().numpy())
                elif type16 == "BF16":
                    writer.write_tensor_data(tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy())
                else:
                    require_f16(tensor, name)
                    writer.write_tensor_data(tensor.to(torch.float16).contiguous().numpy())
                del tensor
            del whole
            advance(4 * size)
    finally:
        writer.close()
    return {kind: count for kind, count in counts.items() if count}


def require_f16(tensor: Any, name: str) -> None:
    """Raise `Float16OverflowError` when a float32 tensor holds values that float16 can't."""
    low, high = tensor.aminmax()
    largest = max(float(high), -float(low))
    if largest > F16_MAX:
        raise Float16OverflowError(
            f"{name} reaches {largest:,.0f}, more than float16 can hold ({F16_MAX:,.0f}); write bf16 instead"
        )


_MISTAKEN = re.compile(r"(phi|modern)-?(?=3|bert)", re.IGNORECASE)


def plain_name(name: str) -> str:
    """A model's name as it is written into a file.

    llama.cpp takes a model whose name holds "phi3", "phi-3" or "modern-bert" for one of that family, and then drops
    blanks beside control tokens, or does not load it: such a word is parted.
    """
    return _MISTAKEN.sub(r"\1 ", name)


def add_model(writer: GGUFWriter, architecture: Architecture, metadata: Metadata) -> None:
    """The keys that describe the model's shape."""
    shape = architecture.shape
    writer.add_type("model")
    writer.add_name(plain_name(metadata.name))
    if metadata.license:
        writer.add_license(metadata.license.lower())
    if metadata.base_name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, metadata.base_name)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(architecture.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(architecture.family.kv_heads(shape))
    writer.add_rope_freq_base(architecture.rope_theta)
    writer.add_layer_norm_rms_eps(architecture.rms_norm_eps)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(shape.vocab_size)
    architecture.family.add_metadata(writer, shape, architecture.config)


def add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer) -> None:
    """The `tokenizer.*` keys."""
    writer.add_tokenizer_model("gpt2" if tokenizer.scores is None else "llama")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.scores is None:
        writer.add_token_merges(tokenizer.merges)
    else:
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(False)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unknown": writer.add_unk_token_id,
        "padding": writer.add_pad_token_id,
    }
    for kind, number in tokenizer.special.items():
        add[kind](number)
    if tokenizer.eot is not None:
        writer.add_eot_token_id(tokenizer.eot)
    if tokenizer.eom is not None:
        writer.add_eom_token_id(tokenizer.eom)
    writer.add_add_bos_token(tokenizer.add_bos)
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)
