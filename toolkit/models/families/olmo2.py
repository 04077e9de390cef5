"""OLMo 2 and 3: norms behind attention and MLP, and over all queries and all keys; windows in most layers of 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import (
    SLIDING,
    Config,
    Family,
    PreTokenizer,
    RopeFactors,
    add_yarn,
    register,
    rope_parameters,
    rope_type,
)
from toolkit.models.families.llama import LLAMA3
from toolkit.models.shape import Layer, ModelShape, gated_layer

if TYPE_CHECKING:
    from gguf import GGUFWriter

DBRX = PreTokenizer("dbrx", LLAMA3.steps)


@register
class Olmo2(Family):
    model_type = gguf_arch = "olmo2"
    class_name = "Olmo2ForCausalLM"
    qk_norm = True
    pre_tokenizers = (DBRX,)

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {
            self.sizes(2048, 8192, 16, 16, 16, 100_352, tied=False): (
                *("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-0425-1B-Instruct"),
            ),
            self.sizes(4096, 11_008, 32, 32, 32, 100_352, tied=False): (
                *("allenai/OLMo-2-1124-7B", "allenai/OLMo-2-1124-7B-Instruct"),
            ),
        }

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        behind = [(name, shape.hidden_size) for name in ("post_attention_layernorm", "post_feedforward_layernorm")]
        heads = (("self_attn.q_norm", shape.attention_size), ("self_attn.k_norm", shape.key_value_size))
        return (Layer(gated_layer(shape).linears, (*behind, *heads)),)

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        if shape.tie_word_embeddings or shape.biased or shape.attention_size != shape.hidden_size:
            raise ModelError(
                f"{where}: tied embeddings, biases or a head_dim of its own can't be exported; llama.cpp has none"
            )


@register
class Olmo3(Olmo2):
    model_type = "olmo3"
    class_name = "Olmo3ForCausalLM"
    usual_window = 4096
    call_format = "olmo"

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {self.sizes(4096, 11_008, 32, 32, 32, 100_278, tied=False): ("allenai/Olmo-3-7B-Instruct",)}

    def kinds(self, config: Config) -> Sequence[str]:
        layers = range(config.get("num_hidden_layers", 0))
        return config.get("layer_types") or [SLIDING if (i + 1) % 4 else "full_attention" for i in layers]

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        full = _full(config)
        if rope_type(full) not in ("default", "yarn"):
            return super().rope({"rope_parameters": full}, shape, where)
        return float(full["rope_theta"]), {}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        if (window := self.window(config)) is not None:
            writer.add_sliding_window(window)
            writer.add_sliding_window_pattern([kind == SLIDING for kind in self.kinds(config)])
            sliding = rope_parameters(config).get(SLIDING) or {}
            if "rope_theta" in sliding:
                writer.add_rope_freq_base_swa(sliding["rope_theta"])
        if rope_type(full := _full(config)) == "yarn":
            add_yarn(writer, full)
            if full.get("attention_factor") is not None:
                writer.add_rope_scaling_yarn_attn_factor(full["attention_factor"])


def _full(config: Config) -> Config:
    """The rope of the layers that see all tokens: the others' is never stretched."""
    rope = rope_parameters(config)
    return {"rope_theta": 500_000.0, **rope.get("full_attention", rope)}
