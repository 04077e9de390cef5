"""Qwen3, its dense models."""

from __future__ import annotations

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, Family, PreTokenizer, register
from toolkit.models.shape import ModelShape

QWEN2 = PreTokenizer(
    "qwen2",
    (
        (
            "Split",
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
            "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        ),
        ("ByteLevel", False),
    ),
    normalizers=("NFC", None),  # llama.cpp applies none; Qwen's NFC is for the caller to do
)


@register
class Qwen3(Family):
    model_type = gguf_arch = "qwen3"
    class_name = "Qwen3ForCausalLM"
    fused_by_unsloth = True
    qk_norm = True
    pre_tokenizers = (QWEN2,)
    call_format = "hermes"

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        def named(size: str, *more: str) -> tuple[str, ...]:
            return f"Qwen/Qwen3-{size}", *(f"Qwen/Qwen3-{one}" for one in more), f"unsloth/Qwen3-{size}"

        return {
            self._sizes(1024, 3072, 28, 16, tied=True): named("0.6B", "0.6B-Base"),
            self._sizes(2048, 6144, 28, 16, tied=True): named("1.7B", "1.7B-Base"),
            self._sizes(2560, 9728, 36, 32, tied=True): (
                *named("4B", "4B-Base"),
                *("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"),
            ),
            self._sizes(4096, 12_288, 36, 32, tied=False): named("8B", "8B-Base"),
            self._sizes(5120, 17_408, 40, 40, tied=False): named("14B", "14B-Base"),
            self._sizes(5120, 25_600, 64, 64, tied=False): named("32B"),
        }

    def _sizes(self, hidden: int, ffn: int, layers: int, heads: int, *, tied: bool) -> ModelShape:
        return self.sizes(hidden, ffn, layers, heads, 8, 151_936, tied=tied, head_dim=128)

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        if shape.biased:
            raise ModelError(f"{where}: Qwen3 with attention_bias can't be exported: llama.cpp's Qwen3 has no biases")
