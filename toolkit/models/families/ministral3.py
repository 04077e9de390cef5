"""Ministral 3, its text model: Mistral's layers under YaRN, queries scaled by how far they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, RopeFactors, add_yarn, register, rope_parameters, rope_type
from toolkit.models.families.llama import Llama
from toolkit.models.families.mistral import TEKKEN
from toolkit.models.shape import ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter


@register
class Ministral3(Llama):
    model_type, gguf_arch = "ministral3", "mistral3"
    whole_types = ("mistral3",)  # of Mistral Small 3 too, whose text part is a mistral
    class_name = "Ministral3ForCausalLM"
    fused_by_unsloth = False
    attention_bias = ()
    windowed = True
    pre_tokenizers = (TEKKEN,)

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {}

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        if self.window(config) is not None:
            raise ModelError(f"{where}: sliding_window can't be exported; llama.cpp would attend to all tokens")

    def rope(self, config: Config, shape: ModelShape, where: str) -> tuple[float, RopeFactors]:
        rope = rope_parameters(config)
        if rope_type(rope) != "yarn":
            raise ModelError(f"{where}: rope type {rope_type(rope)} can't be exported, wanted Ministral 3's yarn")
        return float(rope["rope_theta"]), {}

    def add_metadata(self, writer: GGUFWriter, shape: ModelShape, config: Config) -> None:
        super().add_metadata(writer, shape, config)
        rope = rope_parameters(config)
        add_yarn(writer, rope)
        writer.add_rope_scaling_yarn_log_mul(rope.get("mscale_all_dim", 1.0))
        writer.add_attn_temperature_scale(rope.get("llama_4_scaling_beta", 0.0))

    call_format = "mistral"
