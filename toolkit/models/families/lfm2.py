"""LFM2 and LFM2.5: most layers are short convolutions, the others attend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, Family, register
from toolkit.models.families.llama import LLAMA3
from toolkit.models.shape import Layer, ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter

MLP = ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")


@register
class Lfm2(Family):
    model_type = gguf_arch = "lfm2"
    qk_norm = True
    tied_by_default = True
    attention_bias = ()
    class_name = "Lfm2ForCausalLM"
    norm_eps = "norm_eps"
    pre_tokenizers = (LLAMA3,)
    row_functions = {"conv": ("causal_conv1d_fn",)}  # noqa: RUF012
    same_input = {  # noqa: RUF012
        "self_attn": (("q_proj", "k_proj", "v_proj"), ("out_proj",)),
        "conv": (("in_proj",), ("out_proj",)),
        "feed_forward": (("w1", "w3"), ("w2",)),
    }

    def shape(self, config: Config, where: str) -> ModelShape:
        """Older files say `block_ff_dim` and `tie_embedding`; of the MLP's width two thirds are taken."""
        own = {**config, "intermediate_size": config.get("block_ff_dim", config.get("intermediate_size"))}
        own["tie_word_embeddings"] = config.get("tie_embedding", config.get("tie_word_embeddings", True))
        ffn = own["intermediate_size"]
        if isinstance(ffn, int) and config.get("block_auto_adjust_ff_dim", True):
            ffn = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * ffn / 3))
            multiple = config.get("block_multiple_of", 256)
            own["intermediate_size"] = multiple * -(-ffn // multiple)
        return super().shape(own, where)

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        hidden, ffn, attention = shape.hidden_size, shape.intermediate_size, shape.attention_size
        mlp = tuple(zip(MLP, (hidden, hidden, ffn), (ffn, ffn, hidden), strict=True))
        norms = (("operator_norm", hidden), ("ffn_norm", hidden))
        heads = (("self_attn.q_layernorm", shape.head_dim), ("self_attn.k_layernorm", shape.head_dim))
        attends = Layer(
            (
                ("self_attn.q_proj", hidden, attention),
                ("self_attn.k_proj", hidden, shape.key_value_size),
                ("self_attn.v_proj", hidden, shape.key_value_size),
                ("self_attn.out_proj", attention, hidden),
                *mlp,
            ),
            (*norms, *heads),
        )
        kernel = config.get("conv_L_cache", 3)
        convolves = Layer(
            (("conv.in_proj", hidden, 3 * hidden), ("conv.out_proj", hidden, hidden), *mlp),
            norms,
            (("conv.conv.weight", (hidden, 1, kernel)),),
        )
        return tuple(attends if kind == "full_attention" else convolves for kind in self.kinds(config))

    def outer(self, shape: ModelShape) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return (("model.embedding_norm.weight", (shape.hidden_size,)),)

    def kv_heads(self, shape: ModelShape) -> int | list[int]:
        """None in a layer that convolves, by which llama.cpp tells it."""
        attends = (any(name == "self_attn.k_proj" for name, _, _ in layer.linears) for layer in shape.each_layer())
        return [shape.num_key_value_heads if one else 0 for one in attends]

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        if shape.attention_size != shape.hidden_size:
            raise ModelError(f"{where}: head_dim = {shape.head_dim} of its own can't be exported; llama.cpp has none")

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        writer.add_shortconv_l_cache(config.get("conv_L_cache", 3))

    def takes(self, config: Config) -> bool:
        return not config.get("conv_bias")

    def kinds(self, config: Config) -> Sequence[str]:
        """Older files only say which layers attend."""
        layers = range(config.get("num_hidden_layers", 0))
        attending = config.get("full_attn_idxs")
        attending = layers if attending is None else attending
        return config.get("layer_types") or ["full_attention" if i in attending else "conv" for i in layers]

    call_format = "lfm"
