"""The families of models that are known, and the shape of a recipe's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit import models
from toolkit.errors import ModelError, did_you_mean
from toolkit.models.families import (  # noqa: F401 (each registers its own)
    gemma3,
    granite,
    lfm2,
    llama,
    ministral3,
    mistral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_5,
    smollm3,
)
from toolkit.models.families.base import FAMILIES as FAMILIES
from toolkit.models.families.base import Config as Config
from toolkit.models.families.base import Family as Family
from toolkit.models.families.unknown import UNKNOWN as UNKNOWN
from toolkit.models.shape import ModelShape
from toolkit.trusted import check_folder, read_config

if TYPE_CHECKING:
    from toolkit.recipe.schema import ModelSection

_SAID_OUTSIDE = (
    *("tie_word_embeddings", "dtype", "torch_dtype", "quantization_config"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_KNOWN = {shape: names for kind in sorted(FAMILIES, reverse=True) for shape, names in FAMILIES[kind].known().items()}
KNOWN: dict[str, ModelShape] = {name: shape for shape, names in _KNOWN.items() for name in names}
"""Shapes that need no config.json at hand."""


def family_of(model: Any) -> Family:
    """The family of a transformers model; `UNKNOWN` for one that has none."""
    return family_for(model.config.to_dict())


def family_for(config: Config) -> Family:
    """The family of the model that a config.json describes; `UNKNOWN` where it has none."""
    family = FAMILIES.get(str(text_part(config).get("model_type")), UNKNOWN)
    return family if family.takes(text_part(config)) else UNKNOWN


def text_part(config: Config) -> Config:
    """The part of a config.json that describes what is trained: of a model that has more than text, in `whole_types` of
    a family, the config.json that its text part would have alone; else `config` itself.

    Published files leave out what is as transformers has it, and say some of the text's settings outside of
    `text_config`.
    """
    text = config.get("text_config")
    whole = any(config.get("model_type") in family.whole_types for family in FAMILIES.values())
    if not whole or not isinstance(text, dict):
        return config
    kind = str(text.get("model_type") or "")
    family = FAMILIES.get(kind, UNKNOWN)
    outside = {key: config[key] for key in _SAID_OUTSIDE if config.get(key) is not None}
    named = {"model_type": kind, "architectures": [family.class_name or kind]}
    return {**family.text_defaults, **outside, **text, **named}


def left_out(model: ModelSection) -> str | None:
    """What to say of a recipe's model of which only the text part is trained and exported; None of others, and where
    no config.json is here to tell."""
    config = _config_of(model)
    if config is None or (text := text_part(config)) is config:
        return None
    return (
        f"{config.get('model_type')} is a model of text and images: its text part ({text['model_type']}) is trained "
        "and exported, what sees images is left out"
    )


def shape_from_config(config: Config, where: str) -> ModelShape:
    """The shape that a config.json describes; of a family that is not known, what its sizes and weights tell.

    Raises `ModelError` for a missing size.
    """
    return family_for(config).shape(text_part(config), where)


def unknown_family(shape: ModelShape) -> str | None:
    """What to say of a model whose family is not known; None of others."""
    if shape.known:
        return None
    return (
        f"{shape.model_type} is not a known family (known: {', '.join(sorted(FAMILIES))}): it trains padded, by its "
        "own forward; memory and time are estimates from its sizes; it is neither packed, compiled nor exported"
    )


def why_not_packed(model: ModelSection, longest: int) -> str | None:
    """Why chats of up to `longest` tokens can't be packed for a recipe's model, in words; None where they can, or no
    config.json is here to tell."""
    config = _config_of(model)
    return None if config is None else family_for(config).not_packed(text_part(config), longest)


def more_to_close(model: ModelSection, longest: int) -> str | None:
    """`Family.more_to_close` of a recipe's model; None too where no config.json is here to tell."""
    config = _config_of(model)
    return None if config is None else family_for(config).more_to_close(text_part(config), longest)


def why_not_compiled(model: ModelSection) -> str:
    """`Family.not_compiled` of a recipe's model; empty too where no config.json is here to tell."""
    config = _config_of(model)
    return "" if config is None else family_for(config).not_compiled


def not_fused(model: ModelSection) -> str:
    """The type of a recipe's model where Unsloth has no layers of its own for it; empty where it has, and where no
    config.json is here to tell."""
    config = _config_of(model)
    return "" if config is None or family_for(config).fused_by_unsloth else str(text_part(config).get("model_type"))


def _config_of(model: ModelSection) -> Config | None:
    folder = models.find(model)
    try:
        return read_config(folder / "config.json") if folder is not None else None
    except ModelError:  # which whatever reads it for its sizes says
        return None


def load_shape(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model: from its config.json if that is on this machine, else from `KNOWN`.

    Raises `ModelError` that names what would work when neither is there, and for weights that are quantised.
    """
    folder = models.find(model)
    if folder is not None:
        check_folder(folder)
        path = folder / "config.json"
        config = read_config(path)
        _refuse_quantised(config, str(path))
        return shape_from_config(config, str(path))
    if model.name in KNOWN:
        return KNOWN[model.name]
    models.require_trainable(model.name)
    if models.is_local(model.name):
        raise ModelError(f"model.name: {model.name} has no config.json; wanted a Hugging Face model folder")
    fetch = "" if model.name.startswith("pypi:") else f"fetch it (hf download {model.name} config.json), "
    raise ModelError(
        f"model.name: {model.name} is not in the cache and its sizes are not known here"
        f"{did_you_mean(model.name, KNOWN)}; {fetch}name a local folder with "
        f"its config.json, or one of {', '.join(names[0] for names in _KNOWN.values())}"
    )


def refuse_quantised(model: ModelSection) -> None:
    """Raises `ModelError` for a recipe's model whose weights are quantised already."""
    folder = models.find(model)
    if (config := _config_of(model)) is not None:
        _refuse_quantised(config, f"{folder}/config.json")


def _refuse_quantised(config: Config, where: str) -> None:
    found = config.get("quantization_config") or text_part(config).get("quantization_config")
    if found:
        method = found.get("quant_method") if isinstance(found, dict) else None
        raise ModelError(
            f"{where}: the model's weights are quantised already ({str(method or 'it is not said how')[:40]}); "
            "adapters are trained over 16-bit weights, which model.load_in_4bit = true holds in 4: name the model that "
            "this one was made from"
        )


def find_shape(model: ModelSection) -> ModelShape | None:
    """`load_shape`, or None where the shape can't be known here."""
    try:
        return load_shape(model)
    except ModelError:
        return None
