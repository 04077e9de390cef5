"""The plain engine: transformers + PEFT, on a CPU or a GPU, 16-bit, fp32 or bitsandbytes' NF4."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from toolkit.engines.base import (
    Choice,
    EngineReport,
    Loaded,
    count_parameters,
    lora_settings,
    weight_dtype,
)
from toolkit.errors import EngineError, ModelError
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe


def load(recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware) -> Loaded:
    """Load the base model of `folder` and put a fresh adapter on it.

    Raises `EngineError` for a setting that can't work here and `ModelError` for weights that don't load.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(recipe.train.seed)
    model = load_base(recipe, folder, precision, hardware)
    # without PEFT's prepare_model_for_kbit_training, which would hold the 16-bit embedding in fp32 (0.6 GiB for
    # Qwen3-1.7B); what else it does, TRL's trainer does
    for parameter in model.parameters():
        parameter.requires_grad = False
    config = LoraConfig(task_type="CAUSAL_LM", use_dora=recipe.lora.use_dora, **lora_settings(recipe))
    try:
        model = get_peft_model(model, config)
    except ValueError as error:
        raise EngineError(f"lora.target_modules: {error}") from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    trainable, total = count_parameters(model)
    report = EngineReport(
        engine=engine,
        precision=precision,
        weights="nf4, double quantisation" if recipe.model.load_in_4bit else weight_dtype(recipe, precision.value),
        attention=model.config._attn_implementation,
        trainable=trainable,
        total=total - trainable,
        expected_layers=model.config.num_hidden_layers,
    )
    return Loaded(model, tokenizer, report)


def load_base(recipe: Recipe, folder: Path, precision: Choice, hardware: Hardware) -> Any:
    """The frozen base model on the device it trains on."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, weight_dtype(recipe, precision.value))
    settings: dict[str, Any] = {}
    if recipe.model.load_in_4bit:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise EngineError("model.load_in_4bit: bitsandbytes is not installed; pip install bitsandbytes")
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    attention = recipe.model.attn_implementation
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa" if attention == "auto" else attention,
            device_map={"": 0} if hardware.gpu is not None else {"": "cpu"},
            local_files_only=True,
            **settings,
        )
    except ImportError as error:
        raise EngineError(f"model.attn_implementation: {str(error).splitlines()[0]}") from None
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model.name: {folder} does not load: {str(error).splitlines()[0]}") from None
