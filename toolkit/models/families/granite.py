"""Granite 3, its dense models: Llama's layers with four multipliers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.models.families.base import Config, register
from toolkit.models.families.llama import SMOLLM, Llama
from toolkit.models.shape import ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter


@register
class Granite(Llama):
    model_type = gguf_arch = "granite"
    class_name = "GraniteForCausalLM"
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
