"""Families whose models are planned and trained, but not exported."""

from __future__ import annotations

from toolkit.models.families.base import Config, Family, register
from toolkit.models.shape import ModelShape


@register
class Mistral(Family):
    model_type = "mistral"
    attention_bias = ()

    def not_packed(self, config: Config, longest: int) -> str | None:
        window = config.get("sliding_window")
        if window is not None and longest > window:
            return f"its tokens see {window:,} before them, and chats may have {longest:,}"
        return super().not_packed(config, longest)


@register
class Qwen2(Family):
    model_type = "qwen2"
    biased = ("q_proj", "k_proj", "v_proj")

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {
            self.sizes(896, 4864, 24, 14, 2, 151_936, tied=True): ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct"),
            self.sizes(1536, 8960, 28, 12, 2, 151_936, tied=True): ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct"),
            self.sizes(2048, 11_008, 36, 16, 2, 151_936, tied=True): ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct"),
            self.sizes(3584, 18_944, 28, 28, 4, 152_064, tied=False): ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
        }


@register
class SmolLM3(Family):
    model_type = "smollm3"
    tied_by_default = True
