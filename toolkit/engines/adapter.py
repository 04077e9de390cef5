"""What engines have in common when they put an adapter on a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from toolkit.engines.base import Choice, EngineReport
from toolkit.engines.precision import weight_dtype
from toolkit.errors import EngineError, Problem, did_you_mean
from toolkit.models.shape import is_named
from toolkit.recipe.schema import Recipe


def check_modules(recipe: Recipe, names: Iterable[str]) -> None:
    """Raise one `EngineError` that names every listed module which the model lacks; PEFT skips them without a word.

    `names` are those of the model's modules, as model.layers.0.self_attn.q_proj.
    """
    full = set(names)
    last = {name.rpartition(".")[2] for name in full}
    targets = recipe.lora.target_modules
    listed = {
        "lora.target_modules": [] if isinstance(targets, str) else targets,
        "lora.modules_to_save": recipe.lora.modules_to_save,
    }
    problems = [
        Problem("", f"{key}: the model has no module {name}{did_you_mean(name, last)}")
        for key, wanted in listed.items()
        for name in wanted
        if not any(is_named(one, name) for one in full)
    ]
    if problems:
        raise EngineError(problems)


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; a 4-bit weight counts as the weights it packs, not as its bytes."""
    trainable = total = 0
    for parameter in model.parameters():
        shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
        count = parameter.numel() if shape is None else int(shape.numel())
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def report_on(
    recipe: Recipe, model: Any, engine: Choice, precision: Choice, attention: str, patched: dict[str, int] | None = None
) -> EngineReport:
    """What there is to say of a model that an engine has put an adapter on."""
    trainable, total = count_parameters(model)
    return EngineReport(
        engine=engine,
        precision=precision,
        weights="nf4, double quantisation" if recipe.model.load_in_4bit else weight_dtype(recipe, precision.value),
        attention=attention,
        trainable=trainable,
        total=total - trainable,
        patched=patched or {},
        expected_layers=model.config.num_hidden_layers,
    )


def lora_settings(recipe: Recipe) -> dict[str, Any]:
    """The keyword arguments that PEFT's LoraConfig and Unsloth's get_peft_model have in common."""
    lora = recipe.lora
    return {
        "r": lora.r,
        "lora_alpha": int(lora.lora_alpha) if float(lora.lora_alpha).is_integer() else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": lora.target_modules,
        "bias": lora.bias,
        "use_rslora": lora.use_rslora,
        "modules_to_save": lora.modules_to_save or None,
    }
