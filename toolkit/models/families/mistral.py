"""Mistral: Llama's layers; an older model may see a window of tokens only."""

from __future__ import annotations

from toolkit.models.families.base import Config, PreTokenizer, register
from toolkit.models.families.llama import LLAMA3, Llama
from toolkit.models.shape import ModelShape

TEKKEN = PreTokenizer(
    "tekken",
    (
        (
            "Split",
            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
            "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        ("ByteLevel", False),
    ),
    ignore_merges=True,
)


@register
class Mistral(Llama):
    model_type = "mistral"
    class_name = "MistralForCausalLM"
    attention_bias = ()
    windowed = True
    pre_tokenizers = (TEKKEN, LLAMA3)

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {
            self.sizes(4096, 14_336, 32, 32, 8, 32_768, tied=False): (
                *("mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
            ),
            self.sizes(5120, 14_336, 40, 32, 8, 131_072, tied=False, head_dim=128): (
                *("mistralai/Mistral-Nemo-Base-2407", "mistralai/Mistral-Nemo-Instruct-2407"),
            ),
        }

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        self.refuse_window(config, where)

    call_format = "mistral"
