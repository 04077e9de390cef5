"""Phi-4-mini and Phi-3: one linear layer for queries, keys and values, one for gate and up; a part of a head turns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, Family, PreTokenizer, RopeFactors, register, rope_parameters, rope_type
from toolkit.models.shape import Layer, ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter

GPT4O = PreTokenizer(
    "gpt-4o",
    (
        (
            "Split",
            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
            "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        ("ByteLevel", False),
    ),
)


@register
class Phi3(Family):
    model_type = gguf_arch = "phi3"
    class_name = "Phi3ForCausalLM"
    attention_bias = ()
    windowed = True
    same_input = {"self_attn": (("qkv_proj",), ("o_proj",)), "mlp": (("gate_up_proj",), ("down_proj",))}  # noqa: RUF012
    pre_tokenizers = (GPT4O,)

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {self.sizes(3072, 8192, 32, 24, 8, 200_064, tied=True): ("microsoft/Phi-4-mini-instruct",)}

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        hidden, ffn = shape.hidden_size, shape.intermediate_size
        linears = (
            ("self_attn.qkv_proj", hidden, shape.attention_size + 2 * shape.key_value_size),
            ("self_attn.o_proj", shape.attention_size, hidden),
            ("mlp.gate_up_proj", hidden, 2 * ffn),
            ("mlp.down_proj", ffn, hidden),
        )
        return (Layer(linears, (("input_layernorm", hidden), ("post_attention_layernorm", hidden))),)

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        self.refuse_window(config, where)
        if shape.attention_size != shape.hidden_size:
            raise ModelError(
                f"{where}: head_dim = {shape.head_dim} can't be exported; llama.cpp's heads share the width"
            )

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        rope = rope_parameters(config)
        if rope_type(rope) not in ("longrope", "su"):
            return super().rope(config, shape, where)
        factors = {kind: tuple(map(float, rope[f"{kind}_factor"])) for kind in ("long", "short")}
        return float(rope["rope_theta"]), {f"rope_factors_{kind}.weight": found for kind, found in factors.items()}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        rope, context = rope_parameters(config), config["max_position_embeddings"]
        key = "original_max_position_embeddings"
        original = config.get(key) or rope.get(key, context)
        partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
        writer.add_rope_dimension_count(int(shape.head_dim * partial))
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_sliding_window(0)  # by which llama.cpp tells a Phi-4 from older ones
        if rope_type(rope) in ("longrope", "su"):
            scale = context / original
            stretched = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
            writer.add_rope_scaling_attn_factors(rope.get("attention_factor") or stretched)

    call_format = "tool_call"
