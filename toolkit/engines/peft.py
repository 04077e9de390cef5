"""The plain engine: transformers + PEFT, on a CPU or a GPU, 16-bit, fp32 or bitsandbytes' NF4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.engines.base import (
    Choice,
    Loaded,
    check_modules,
    lora_settings,
    report_on,
    weight_dtype,
)
from toolkit.errors import EngineError, ModelError
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe
from toolkit.terminal import without_bars
from toolkit.trusted import load_model


def load(recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware) -> Loaded:
    """Load the base model of `folder` and put a fresh adapter on it.

    Raises `EngineError` for a setting that can't work here and `ModelError` for weights that don't load.
    """
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
    report = report_on(recipe, model, engine, precision, model.config._attn_implementation)
    return Loaded(model, tokenizer, report)


def load_base(recipe: Recipe, folder: Path, precision: Choice, hardware: Hardware) -> Any:
    """The frozen base model on the device it trains on. Raises `ModelError` when a file is broken or lacks weights."""
    import torch
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
        raise EngineError(f"model.attn_implementation: {str(error).splitlines()[0]}") from None
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"model.name: {folder} does not load: {str(error).splitlines()[0]}") from None
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
