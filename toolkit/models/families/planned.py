"""Families whose models are planned and trained, but not exported."""

from __future__ import annotations

from toolkit.models.families.base import Config, Family, register


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
class SmolLM3(Family):
    model_type = "smollm3"
    tied_by_default = True
