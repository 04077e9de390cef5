"""SmolLM3: Llama's layers, every fourth of which rotates nothing."""

from __future__ import annotations

from toolkit.errors import ModelError
from toolkit.models.families.base import Config, register
from toolkit.models.families.llama import LLAMA3, Llama
from toolkit.models.shape import ModelShape

WITHOUT_ROPE = 4  # as llama.cpp has it: of each four layers the last


@register
class SmolLM3(Llama):
    model_type = gguf_arch = "smollm3"
    class_name = "SmolLM3ForCausalLM"
    fused_by_unsloth = False
    tied_by_default = True
    pre_tokenizers = (LLAMA3,)
    call_format = "hermes"

    def known(self) -> dict[ModelShape, tuple[str, ...]]:
        return {
            self.sizes(2048, 11_008, 36, 16, 4, 128_256, tied=True): (
                *("HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolLM3-3B-Base"),
            )
        }

    def check_export(self, config: Config, shape: ModelShape, where: str) -> None:
        super().check_export(config, shape, where)
        interval = config.get("no_rope_layer_interval", WITHOUT_ROPE)
        layers = config.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(shape.num_hidden_layers)]
        if list(map(bool, layers)) != [(i + 1) % WITHOUT_ROPE != 0 for i in range(shape.num_hidden_layers)]:
            raise ModelError(
                f"{where}: no_rope_layers can't be exported; llama.cpp rotates all but every fourth layer of a SmolLM3"
            )
