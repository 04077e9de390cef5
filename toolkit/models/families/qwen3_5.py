"""Qwen3.5, its dense text models: three of four layers have gated delta rules. Not exported."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.models.families.base import Config, Family, register
from toolkit.models.shape import MLP, Layer, ModelShape


@register
class Qwen3_5(Family):
    model_type, gguf_arch = "qwen3_5_text", "qwen35"
    whole_types = ("qwen3_5",)
    qk_norm = True
    row_functions = {"linear_attention": ("causal_conv1d_fn", "torch_chunk_gated_delta_rule")}  # noqa: RUF012
    not_compiled = "torch would compile its gated delta layers anew for every list of chats"
    same_input = {  # noqa: RUF012
        **Family.same_input,
        "linear_attn": (("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"), ("out_proj",)),
    }

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        hidden, ffn, attention = shape.hidden_size, shape.intermediate_size, shape.attention_size
        sizes = ((hidden, ffn), (hidden, ffn), (ffn, hidden))
        mlp = tuple((f"mlp.{name}", *size) for name, size in zip(MLP, sizes, strict=True))
        norms = (("input_layernorm", hidden), ("post_attention_layernorm", hidden))
        attends = Layer(
            (
                ("self_attn.q_proj", hidden, 2 * attention),  # a gate for each of its features beside it
                ("self_attn.k_proj", hidden, shape.key_value_size),
                ("self_attn.v_proj", hidden, shape.key_value_size),
                ("self_attn.o_proj", attention, hidden),
                *mlp,
            ),
            (*norms, ("self_attn.q_norm", shape.head_dim), ("self_attn.k_norm", shape.head_dim)),
        )
        key_heads, heads = config.get("linear_num_key_heads", 16), config.get("linear_num_value_heads", 32)
        key_size, size = config.get("linear_key_head_dim", 128), config.get("linear_value_head_dim", 128)
        keys, values = key_heads * key_size, heads * size
        recurs = Layer(
            (
                ("linear_attn.in_proj_qkv", hidden, 2 * keys + values),
                ("linear_attn.in_proj_z", hidden, values),
                ("linear_attn.in_proj_b", hidden, heads),
                ("linear_attn.in_proj_a", hidden, heads),
                ("linear_attn.out_proj", values, hidden),
                *mlp,
            ),
            (*norms, ("linear_attn.norm", size)),
            (
                ("linear_attn.conv1d.weight", (2 * keys + values, 1, config.get("linear_conv_kernel_dim", 4))),
                ("linear_attn.dt_bias", (heads,)),
                ("linear_attn.A_log", (heads,)),
            ),
        )
        return tuple(attends if kind == "full_attention" else recurs for kind in self.kinds(config))

    def kinds(self, config: Config) -> Sequence[str]:
        every, layers = config.get("full_attention_interval", 4), range(config.get("num_hidden_layers", 0))
        said = config.get("layer_types")
        return said or ["linear_attention" if (i + 1) % every else "full_attention" for i in layers]
