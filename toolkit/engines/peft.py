"""The plain engine: transformers + PEFT, on a CPU or a GPU, 16-bit, fp32 or bitsandbytes' NF4."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

from toolkit.engines.adapter import check_modules, lora_settings, report_on
from toolkit.engines.attention import attention_over_rows, wants_others, without_cudnn
from toolkit.engines.base import Choice, Engine, Launch, Loaded, Packing, Passes
from toolkit.engines.gated_delta import Delta, delta_of
from toolkit.engines.precision import weight_dtype
from toolkit.engines.setup import Setup
from toolkit.errors import EngineError, ModelError, first_line
from toolkit.hardware import Hardware
from toolkit.machine import is_short
from toolkit.models.loading import load_model
from toolkit.progress import without_bars
from toolkit.recipe.schema import Recipe

DROPOUT = 2.35  # bytes that are kept on CUDA for each dropped feature; fitted


class Peft(Engine):
    name = "peft"
    distributions: ClassVar[tuple[str, ...]] = (
        *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "bitsandbytes"),
    )
    timed_with: ClassVar[tuple[str, ...]] = ("torch",)
    automatic = 1
    holds_scores = True
    launch = Launch(0.0115, 0.0055, 1.25)

    def passes(self, setup: Setup) -> Passes:
        return Passes(38.0, 14.0, 9.0)

    def layer_activations(self, setup: Setup) -> float:
        attends, delta = self._attending(setup), delta_of(setup.shape)
        return attends if delta is None else attends + delta.share * (self._recurring(setup, delta) - attends)

    def largest_layer(self, setup: Setup) -> float:
        delta = delta_of(setup.shape)
        if delta is None:
            return self.layer_activations(setup)
        return max(self._attending(setup), self._recurring(setup, delta))

    def _recurring(self, setup: Setup, delta: Delta) -> float:
        """A layer with a gated delta rule in the place of attention: norms and MLP as below."""
        shape, wide = setup.shape, setup.element / 2
        dropout = DROPOUT if setup.cuda else 4
        return (
            wide * (2 * (6 * shape.hidden_size + 3 * shape.intermediate_size) + dropout * setup.dropped) + delta.bytes
        )

    def _attending(self, setup: Setup) -> float:
        """Inputs, norms in fp32, gate and up and their product, and keys and values repeated for their query heads, as
        padding's mask demands. Under fp32 no casts are kept; on a CPU more are. Dropout adds masks of one byte an input
        feature and the dropped copies that stand for the inputs."""
        shape = setup.shape
        hidden, ffn = shape.hidden_size, shape.intermediate_size
        attention, qkv = shape.attention_size, shape.attention_size + 2 * shape.key_value_size
        repeated = 2 * (attention - shape.key_value_size)
        if setup.element == 4:
            elements = 4 * ffn + (2.5 if shape.qk_norm else 2) * qkv + 3.4 * hidden + repeated
            return 4 * elements + 5.8 * setup.dropped
        if not setup.cuda:
            elements = 4 * ffn + (4 if shape.qk_norm else 3) * qkv + 2 * attention + 6.5 * hidden + repeated
            return 2 * elements + 4 * setup.dropped
        # each norm keeps its input in fp32 and the normed copy; attention its inputs and output; SwiGLU three factors
        normed = 2 * hidden + (attention + shape.key_value_size if shape.qk_norm else 0)
        inputs = 0 if setup.dropped else ffn + 2 * hidden
        return 2 * (3 * normed + qkv + attention + 3 * ffn + inputs + repeated) + DROPOUT * setup.dropped

    def backward_transient(self, setup: Setup) -> float:
        """Fitted, where layers recompute over 16-bit weights."""
        if setup.held == "16-bit" and setup.checkpointing != "off" and setup.cuda:
            return setup.element * (5 * setup.shape.intermediate_size + 4 * setup.shape.hidden_size)
        return super().backward_transient(setup)

    def loss_transient(self, setup: Setup, tokens: int, trained: int) -> float:
        """TRL's head runs over the trained tokens, 4,096 by 32,768 at a time, and keeps a gradient of the hidden states
        in fp32."""
        return min(trained, 4096) * min(setup.shape.vocab_size, 32_768) * 6 + 4 * tokens * setup.shape.hidden_size

    def load(
        self, recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware
    ) -> Loaded:
        # seconds to import, which a plan does without
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        set_seed(recipe.train.seed)
        model = load_base(recipe, folder, precision, hardware)
        # without PEFT's prepare_model_for_kbit_training, which would hold the 16-bit embedding in fp32 (0.6 GiB for
        # Qwen3-1.7B); what else it does, TRL's trainer does
        for parameter in model.parameters():
            parameter.requires_grad = False
        check_modules(recipe, (name for name, _ in model.named_modules()))
        config = LoraConfig(task_type="CAUSAL_LM", use_dora=recipe.lora.use_dora, **lora_settings(recipe))
        try:
            model = get_peft_model(model, config)
        except ValueError as error:
            raise EngineError(f"lora.target_modules: {error}") from None
        attention = model.config._attn_implementation
        if recipe.train.micro_batch != "fixed":
            _, attention = attention_over_rows(model, recipe, precision, hardware)
        report = report_on(recipe, model, engine, precision, attention)
        return Loaded(model, tokenizer, report, self.packing(hardware, others=wants_others(recipe)))

    def packing(self, hardware: Hardware, *, others: bool = True) -> Packing:
        """Through transformers' attention interface; `others`: kernels of other packages than PyTorch's too."""
        from toolkit.kernels.packed_attention import packed as rows  # imports torch

        packed = functools.partial(rows, others=others)
        multiple = functools.partial(self.multiple, cuda=hardware.gpu is not None, dynamic=True)
        return Packing(dict, packed, packed, multiple)


def load_base(recipe: Recipe, folder: Path, precision: Choice, hardware: Hardware) -> Any:
    """The frozen base model on the device it trains on. Raises `ModelError` when a file is broken or lacks weights."""
    import torch  # seconds to import, as the rest of these
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import BitsAndBytesConfig
    from transformers.utils import logging

    dtype = getattr(torch, weight_dtype(recipe, precision.value))
    settings: dict[str, Any] = {}
    if recipe.model.load_in_4bit:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    attention = recipe.model.attn_implementation
    without_cudnn()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of what does not fit: the message below says it in a line
    try:
        with without_bars():
            model, found = load_model(
                folder,
                dtype=dtype,
                attn_implementation="sdpa" if attention == "auto" else attention,
                device_map={"": 0} if hardware.gpu is not None else {"": "cpu"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **settings,
            )
    except ImportError as error:
        if is_short(error):
            raise
        raise EngineError(f"model.attn_implementation: {first_line(error)}") from None
    except ModelError:
        raise
    except StrictDataclassError as error:  # of a config class; more than a line
        raise ModelError(f"model.name: {folder} does not load: {' '.join(str(error).split())[:300]}") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if is_short(error):
            raise
        raise ModelError(f"model.name: {folder} does not load: {first_line(error)}") from None
    finally:
        logging.set_verbosity(level)
    for module in model.modules():
        # bitsandbytes would repack weights for the CPU at the first forward in evaluation mode, and the product over
        # that layout has no backward: what trains afterwards gets wrong gradients, with a warning only
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    # transformers fills them with random numbers
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"model.name: {folder}: {len(wrong)} weights are missing or of another shape than its config.json says, "
            f"{wrong[0]} the first"
        )
    return model
