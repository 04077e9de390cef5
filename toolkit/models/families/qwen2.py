"""Qwen2.5, and Qwen2 before it."""

from __future__ import annotations

from toolkit.models.families.base import Family, register
from toolkit.models.families.qwen3 import QWEN2
from toolkit.models.shape import ModelShape


@register
class Qwen2(Family):
    model_type = gguf_arch = "qwen2"
    class_name = "Qwen2ForCausalLM"
    fused_by_unsloth = True
    biased = ("q_proj", "k_proj", "v_proj")
    pre_tokenizers = (QWEN2,)
    call_format = "hermes"

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        def named(size: str) -> tuple[str, ...]:
            return f"Qwen/Qwen2.5-{size}", f"Qwen/Qwen2.5-{size}-Instruct"

        return {
            self.sizes(896, 4864, 24, 14, 2, 151_936, tied=True): named("0.5B"),
            self.sizes(1536, 8960, 28, 12, 2, 151_936, tied=True): named("1.5B"),
            self.sizes(2048, 11_008, 36, 16, 2, 151_936, tied=True): named("3B"),
            self.sizes(3584, 18_944, 28, 28, 4, 152_064, tied=False): named("7B"),
            self.sizes(5120, 13_824, 48, 40, 8, 152_064, tied=False): named("14B"),
            self.sizes(5120, 27_648, 64, 40, 8, 152_064, tied=False): named("32B"),
        }
