"""Qwen3.5, its dense text models: three of four layers have gated delta rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, Family, PreTokenizer, register, rope_parameters
from toolkit.models.shape import MLP, Layer, ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

RECURS = "linear_attention"
OWN = ("dt_bias", "A_log")
VALUES = ("in_proj_z.weight", "in_proj_b.weight", "in_proj_a.weight", *OWN)  # whose rows are heads of values


QWEN35 = PreTokenizer(
    "qwen35",
    (
        (
            "Split",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
            " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        ("ByteLevel", False),
    ),
    normalizers=("NFC", None),  # as QWEN2
)


@register
class Qwen3_5(Family):
    model_type, gguf_arch = "qwen3_5_text", "qwen35"
    whole_types = ("qwen3_5",)
    class_name = "Qwen3_5ForCausalLM"
    call_format = "xml"
    pre_tokenizers = (QWEN35,)
    qk_norm = True
    row_functions = {RECURS: ("causal_conv1d_fn", "torch_chunk_gated_delta_rule")}  # noqa: RUF012
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

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        keys, values = config.get("linear_key_head_dim", 128), config.get("linear_value_head_dim", 128)
        if keys != values or shape.biased:
            raise ModelError(
                f"{where}: linear_value_head_dim = {values} beside linear_key_head_dim = {keys}, or biases, can't be "
                "exported; llama.cpp has one size of heads and no biases"
            )
        if sum(_sections(config)) > shape.head_dim:
            raise ModelError(
                f"{where}: mrope_section {_sections(config)} can't be exported for heads of {shape.head_dim}"
            )
        kinds = self.kinds(config)
        if [kind == RECURS for kind in kinds] != [bool((i + 1) % _interval(kinds)) for i in range(len(kinds))]:
            raise ModelError(
                f"{where}: layer_types without an interval can't be exported: not every llama.cpp reads them"
            )

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        heads, size = config.get("linear_num_value_heads", 32), config.get("linear_value_head_dim", 128)
        kinds, rope = self.kinds(config), rope_parameters(config)
        writer.add_ssm_conv_kernel(config.get("linear_conv_kernel_dim", 4))
        writer.add_ssm_state_size(config.get("linear_key_head_dim", 128))
        writer.add_ssm_group_count(config.get("linear_num_key_heads", 16))
        writer.add_ssm_time_step_rank(heads)
        writer.add_ssm_inner_size(size * heads)
        writer.add_array(f"{self.gguf_arch}.attention.recurrent_layers", [kind == RECURS for kind in kinds])
        writer.add_full_attention_interval(_interval(kinds))  # of which older llama.cpp knows alone
        writer.add_rope_dimension_count(int(shape.head_dim * rope.get("partial_rotary_factor", 0.25)))
        writer.add_rope_dimension_sections([*_sections(config), 0, 0, 0, 0][:4])

    def gguf_names(self, shape: ModelShape) -> dict[str, str]:
        """Two weights of a layer are no module's `weight`, and have names of their own there."""
        plain = replace(shape, layers=tuple(replace(layer, others=layer.others[:1]) for layer in shape.each_layer()))
        names = super().gguf_names(plain)
        for name in shape.weights():
            layer = f"blk.{name.split('.')[2]}" if name.endswith(OWN) else ""
            if layer:
                names[name] = f"{layer}.ssm_dt.bias" if name.endswith("dt_bias") else f"{layer}.ssm_a"
        return {name: names[name] for name in shape.weights()}

    def to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        """Norms hold one plus the weight, but for that of the delta rule's output; decays are no logarithms there."""
        if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            return weight + 1
        if name.endswith("A_log"):
            weight = -weight.exp()
        return _rows(name, weight, config, back=False)

    def columns_to_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        return _tiled(weight, 1, config, back=False) if name.endswith("linear_attn.out_proj.weight") else weight

    def from_gguf(self, name: str, weight: Tensor, shape: ModelShape, config: Config) -> Tensor:
        if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            return weight - 1
        if name.endswith("linear_attn.out_proj.weight"):
            return _tiled(weight, 1, config, back=True)
        weight = _rows(name, weight, config, back=True)
        return (-weight).log() if name.endswith("A_log") else weight

    def kinds(self, config: Config) -> Sequence[str]:
        every, layers = config.get("full_attention_interval", 4), range(config.get("num_hidden_layers", 0))
        said = config.get("layer_types")
        return said or [RECURS if (i + 1) % every else "full_attention" for i in layers]


def _interval(kinds: Sequence[str]) -> int:
    """Of how many layers the last attends to all tokens."""
    return next((i + 1 for i, kind in enumerate(kinds) if kind != RECURS), len(kinds) + 1)


def _sections(config: Config) -> list[int]:
    """Pairs of dimensions that turn by time, height and width; for text all three are its place."""
    return list(rope_parameters(config).get("mrope_section", (11, 11, 10)))


def _rows(name: str, weight: Tensor, config: Config, *, back: bool) -> Tensor:
    """A weight with the rows that belong to heads of values in llama.cpp's order, or `back` in transformers'."""
    import torch

    if name.endswith(VALUES):
        return _tiled(weight, 0, config, back=back)
    if not name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        return weight
    values = config.get("linear_num_value_heads", 32) * config.get("linear_value_head_dim", 128)
    others, mine = weight[:-values], weight[-values:]
    return torch.cat([others, _tiled(mine, 0, config, back=back)])


def _tiled(weight: Tensor, axis: int, config: Config, *, back: bool) -> Tensor:
    """Heads of values stand by their head of keys in transformers. In llama.cpp the first of each comes first, then the
    second of each."""
    keys, heads = config.get("linear_num_key_heads", 16), config.get("linear_num_value_heads", 32)
    split = (heads // keys, keys) if back else (keys, heads // keys)
    before, after = weight.shape[:axis], weight.shape[axis + 1 :]
    parts = weight.reshape(*before, *split, weight.shape[axis] // heads, *after)
    return parts.swapaxes(axis, axis + 1).reshape(weight.shape)
