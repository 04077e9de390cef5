"""PEFT's adapter folder, for a merge: for each weight of the base, what is added to it or put in its place.

Everything that changes the result is either applied or refused by name: scaling (also rsLoRA's), rank and alpha
patterns, DoRA, embedding adapters, biases and whole saved modules are applied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from toolkit.errors import ModelError
from toolkit.export.architecture import Architecture
from toolkit.machine import is_short
from toolkit.models.loading import text_name
from toolkit.trusted import ADAPTER_CONFIG as CONFIG
from toolkit.trusted import ADAPTER_WEIGHTS as WEIGHTS
from toolkit.trusted import check_adapter

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
# what PEFT can do to a LoRA that no merge here knows
_REFUSED = (
    *("alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication", "lora_bias"),
    *("megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora"),
    "use_qalora",
)
# ways to begin that also change the base weights, which only PEFT's own conversion undoes
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(slots=True)
class Pair:
    """One module's adapter. LoRA A [r, in] and B [out, r], or an embedding's A [r, vocabulary] and B [hidden, r]."""

    a: str
    b: str
    rank: int
    scale: float
    embedding: bool = False
    magnitude: str | None = None


@dataclass(slots=True)
class Adapter:
    """An adapter folder, opened. `pairs` and `replaced` are keyed by the name of the base's weight."""

    folder: Path
    config: Mapping[str, Any]
    pairs: dict[str, Pair] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)

    @property
    def base_name(self) -> str | None:
        """The base model that the adapter says it was trained on."""
        return self.config.get("base_model_name_or_path")

    @property
    def rslora(self) -> bool:
        return bool(self.config.get("use_rslora"))

    @property
    def dora(self) -> bool:
        return bool(self.config.get("use_dora"))

    @property
    def alpha(self) -> float:
        return float(self.config["lora_alpha"])

    def tensor(self, key: str) -> Tensor:
        """A tensor of the adapter's file, float32, by the key that `Pair` or `replaced` names."""
        import torch

        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            return file.get_tensor(key).to(torch.float32)

    def summary(self) -> dict[str, Any]:
        return {
            "r": self.config.get("r"),
            "alpha": self.alpha,
            "rslora": self.rslora,
            "dora": self.dora,
            "modules_to_save": list(self.config.get("modules_to_save") or ()),
            "modules": len(self.pairs),
        }


def open_adapter(folder: Path, architecture: Architecture) -> Adapter:
    """The adapter in `folder`, checked against the base model's architecture.

    Raises `RunError` for a folder that holds none and `ModelError` for one that does not fit: names or shapes of
    another base, values that are not finite, or something that a merge does not know.
    """
    config = _config(folder)
    _refuse(folder, config)
    adapter = Adapter(folder, config)
    try:
        shapes = _shapes(folder / WEIGHTS)
    except Exception as error:  # safetensors raises its own, and OSError
        if is_short(error):
            raise
        raise ModelError(f"{folder / WEIGHTS}: can't be read ({error})") from None
    _sort_in(adapter, shapes, architecture)
    if not adapter.pairs and not adapter.replaced:
        raise ModelError(f"{folder}: the adapter holds no weights")
    return adapter


def _config(folder: Path) -> dict[str, Any]:
    config = check_adapter(folder)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder / CONFIG}: peft_type {config.get('peft_type')} can't be exported, wanted LORA")
    return config


def _refuse(folder: Path, config: Mapping[str, Any]) -> None:
    if found := [key for key in _REFUSED if config.get(key)]:
        raise ModelError(f"{folder / CONFIG}: {', '.join(found)} can't be merged; leave it out when training")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ModelError(
            f"{folder / CONFIG}: init_lora_weights = {start} changed the base weights too; convert the adapter with "
            "PEFT's save_pretrained(path_initial_model_for_weight_conversion=...) first"
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    import torch

    with safe_open(path, framework="pt") as file:
        found = {}
        for key in file.keys():  # noqa: SIM118 (a method of safe_open)
            tensor = file.get_tensor(key)
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{key} holds NaN or infinite values: training went wrong")
            found[key] = tuple(tensor.shape)
        return found


_KEY = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?"
)


def _sort_in(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> None:
    base = architecture.tensors
    parts: dict[str, dict[str, str]] = {}
    for key in shapes:
        inner = key.removeprefix(PREFIX)
        if match := _KEY.fullmatch(inner):
            parts.setdefault(f"{match['module']}.weight", {})[match["part"]] = key
        else:
            adapter.replaced[inner.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = key
    _check_names(adapter, (*parts, *adapter.replaced), base, architecture)
    for name, key in adapter.replaced.items():
        if shapes[key] != base[name]:
            raise _misfit(adapter, key, shapes[key], name, base[name])
    for name, found in parts.items():
        adapter.pairs[name] = _pair(adapter, name, found, shapes, base[name])


def _check_names(adapter: Adapter, names: Iterable[str], base: Mapping[str, Any], architecture: Architecture) -> None:
    tied = architecture.tied
    for name in names:
        if tied and name in ("lm_head.weight", "model.embed_tokens.weight"):
            raise ModelError(
                f"{adapter.folder}: the adapter trains {name.removesuffix('.weight')}, but the base's embedding and "
                "head are one tensor; there is no such merged model. Train without it"
            )
        if name not in base and text_name(name) != name:
            raise ModelError(
                f"{adapter.folder}: the adapter was trained with the part that sees images around the text's ({name}); "
                "only the text part of such a model can be exported: train on that alone, as `toolkit run` does"
            )
        if name not in base:
            raise ModelError(
                f"{adapter.folder}: the base model has no {name}: this adapter was trained on another base "
                f"({adapter.base_name}); name that one with --base"
            )


def _pair(
    adapter: Adapter,
    name: str,
    found: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    wanted: tuple[int, ...],
) -> Pair:
    embedding = "lora_embedding_A" in found
    first, second = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    if first not in found or second not in found:
        raise ModelError(f"{adapter.folder}: half of the adapter of {name} is missing")
    (rank, fan_in), (fan_out, _) = shapes[found[first]], shapes[found[second]]
    if ((fan_in, fan_out) if embedding else (fan_out, fan_in)) != wanted:
        raise _misfit(adapter, found[first], (fan_out, fan_in), name, wanted)
    alpha = _patterned(adapter.config.get("alpha_pattern") or {}, name.removesuffix(".weight"), adapter.alpha)
    scale = alpha / math.sqrt(rank) if adapter.rslora else alpha / rank
    magnitude = found.get("lora_magnitude_vector")
    if embedding and magnitude:
        raise ModelError(f"{adapter.folder}: DoRA on an embedding can't be merged; leave {name} out when training")
    return Pair(found[first], found[second], rank, scale, embedding, magnitude)


def _patterned(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the end of the module's name, from a dot on."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return default


def _misfit(adapter: Adapter, key: str, shape: tuple[int, ...], name: str, wanted: tuple[int, ...]) -> ModelError:
    why = (
        "the vocabulary was resized after the adapter, or before it"
        if name in ("model.embed_tokens.weight", "lm_head.weight")
        else f"this adapter was trained on another base ({adapter.base_name}); name that one with --base"
    )
    return ModelError(f"{adapter.folder}: {key} is for a weight of {list(shape)}, the base's is {list(wanted)}: {why}")
