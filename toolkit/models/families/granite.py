"""Granite 3 and 4, dense models: Llama's layers with four multipliers; of 4 gate and up are one linear layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, Part, register, size_of
from toolkit.models.families.llama import SMOLLM, Llama
from toolkit.models.shape import Layer, ModelShape, gated_layer

if TYPE_CHECKING:
    from gguf import GGUFWriter


@register
class Granite(Llama):
    model_type = gguf_arch = "granite"
    class_name = "GraniteForCausalLM"
    call_format = "tool_call"
    fused_by_unsloth = False  # its path for it is switched off, up to 2026.10.9
    logits_divisor = "logits_scaling"
    pre_tokenizers = (SMOLLM,)  # llama.cpp splits as Granite's own, "refact", does

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        super().add_metadata(writer, shape, config)
        writer.add_attention_scale(config.get("attention_multiplier", 1.0))
        writer.add_embedding_scale(config.get("embedding_multiplier", 1.0))
        writer.add_residual_scale(config.get("residual_multiplier", 1.0))
        writer.add_logit_scale(config.get(self.logits_divisor, 1.0))


@register
class Granite4(Granite):
    """Of the type granitemoehybrid those without experts and state-space layers."""

    model_type = "granitemoehybrid"
    class_name = "GraniteMoeHybridForCausalLM"
    call_format = "hermes"
    same_input = {  # noqa: RUF012
        "self_attn": Granite.same_input["self_attn"],
        "shared_mlp": (("input_linear",), ("output_linear",)),
    }

    def takes(self, config: Config) -> bool:
        kinds = set(config.get("layer_types") or ["linear_attention"])
        return not config.get("num_local_experts", 8) and kinds <= {"attention", "full_attention"}

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {}

    def shape(self, config: Config, where: str) -> ModelShape:
        ffn = size_of(config, ("shared_intermediate_size",), where)
        return super().shape({**config, "intermediate_size": ffn}, where)

    def layers(self, shape: ModelShape, config: Config) -> tuple[Layer, ...]:
        plain, hidden, ffn = gated_layer(shape), shape.hidden_size, shape.intermediate_size
        mlp = (("shared_mlp.input_linear", hidden, 2 * ffn), ("shared_mlp.output_linear", ffn, hidden))
        return (Layer((*plain.linears[:4], *mlp), plain.norms),)

    def not_packed(self, config: Config, longest: int) -> str | None:
        return None

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        if config.get("position_embedding_type") not in ("rope", "nope", None):
            raise ModelError(f"{where}: position_embedding_type {config['position_embedding_type']} can't be exported")

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        super().add_metadata(writer, shape, config)
        if config.get("position_embedding_type") != "rope":
            writer.add_rope_scaling_finetuned(False)  # by which llama.cpp turns nothing

    def gguf_names(self, shape: ModelShape) -> dict[str, str]:
        return {name: parts[0].name for name, parts in self.gguf_parts(shape).items()}

    def gguf_parts(self, shape: ModelShape) -> dict[str, tuple[Part, ...]]:
        """As of a Granite 3: the first half of what goes into the MLP's activation is the gate."""
        ffn, hidden = shape.intermediate_size, shape.hidden_size
        found: dict[str, tuple[Part, ...]] = {}
        for name, size in shape.weights().items():
            plain = name.replace("shared_mlp.output_linear", "mlp.down_proj").replace("input_linear", "gate_proj")
            plain = plain.replace("shared_mlp.gate_proj", "mlp.gate_proj")
            short = self._plain_names(shape)[plain]
            found[name] = (Part(short, size),)
            if name.endswith("input_linear.weight"):
                up = short.replace("ffn_gate", "ffn_up")
                found[name] = Part(short, (ffn, hidden), 0, ffn), Part(up, (ffn, hidden), ffn)
        return found

    def _plain_names(self, shape: ModelShape) -> dict[str, str]:
        return super().gguf_names(replace(shape, layers=()))
