"""Which models can be exported, and what of their config.json a GGUF needs. Everything else is refused by name."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.models.families import shape_from_config
from toolkit.models.shape import ModelShape

SUPPORTED = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""GGUF's general.architecture, which is also the model_type in config.json, and transformers' class."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A supported model's sizes and settings. `rope_factors` are llama3's, one a pair of dimensions, or empty."""

    arch: str
    class_name: str
    shape: ModelShape
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    rope_factors: tuple[float, ...]
    dtype: str
    has_head_dim: bool  # config.json spells head_dim out

    @property
    def tied(self) -> bool:
        return self.shape.tie_word_embeddings

    @property
    def permutes(self) -> bool:
        """llama.cpp's Llama rotates neighbouring dimensions, transformers halves: query and key rows change places."""
        return self.arch == "llama"

    def linears(self) -> list[str]:
        """Names of the layers' linear modules, without the head: those that 4-bit training holds as NF4."""
        return [name for name, _, _ in self.shape.modules()][1:-1]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight in transformers' naming, in the order that a GGUF has them."""
        shape = self.shape
        hidden = shape.hidden_size
        found: dict[str, tuple[int, ...]] = {}
        if not self.tied:
            found["lm_head.weight"] = (shape.vocab_size, hidden)
        found["model.embed_tokens.weight"] = (shape.vocab_size, hidden)
        norms = {f"{name}.weight": (size,) for name, size in shape.norms()}
        for layer in range(shape.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            for name, fan_in, fan_out in shape.modules():
                if not name.startswith(prefix):
                    continue
                found[f"{name}.weight"] = (fan_out, fan_in)
                if name.rpartition(".")[2] in shape.biased:
                    found[f"{name}.bias"] = (fan_out,)
            found |= {name: size for name, size in norms.items() if name.startswith(prefix)}
        found["model.norm.weight"] = norms["model.norm.weight"]
        return found


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises `ModelError`."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json; wanted a Hugging Face model folder") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is not readable JSON ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: wanted a JSON object")
    return config


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a model folder, from its config.json alone.

    Raises `ModelError` that names what is not supported: another architecture, quantised weights, a rope or an
    activation that the GGUF would have to describe and this writer does not.
    """
    config = read_config(folder)
    where = folder / "config.json"
    kind = str(config.get("model_type"))
    class_name = (config.get("architectures") or [SUPPORTED.get(kind, kind)])[0]
    if kind not in SUPPORTED or class_name != SUPPORTED[kind]:
        raise ModelError(
            f"{where}: {class_name} ({kind}) can't be exported; what can: {', '.join(sorted(SUPPORTED.values()))}. "
            "The adapter itself works in PEFT as it is"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelError(
            f"{where}: the base model's weights are quantised ({method}); an adapter is merged into 16-bit weights "
            "only: name the original model with --base"
        )
    shape = shape_from_config(config, str(where))
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise ModelError(f"{where}: hidden_act {activation} can't be exported, wanted silu")
    if config.get("use_sliding_window"):
        raise ModelError(f"{where}: use_sliding_window = true can't be exported; llama.cpp would attend to all tokens")
    if kind == "qwen3" and shape.biased:
        raise ModelError(f"{where}: Qwen3 with attention_bias can't be exported: llama.cpp's Qwen3 has no biases")
    theta, factors = _rope(config, shape, str(where))
    try:
        return Architecture(
            arch=kind,
            class_name=class_name,
            shape=shape,
            context_length=int(config["max_position_embeddings"]),
            rms_norm_eps=float(config["rms_norm_eps"]),
            rope_theta=theta,
            rope_factors=factors,
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            has_head_dim=config.get("head_dim") is not None,
        )
    except KeyError as error:
        raise ModelError(f"{where}: {error.args[0]} is missing") from None


def _rope(config: dict[str, Any], shape: ModelShape, where: str) -> tuple[float, tuple[float, ...]]:
    """Base frequency and llama3's factors. transformers 5 writes rope_parameters, older ones two keys."""
    rope = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta", 10_000.0),
        **(config.get("rope_scaling") or {}),
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = float(rope.get("rope_theta", 10_000.0))
    if kind == "default":
        return theta, ()
    if kind == "llama3" and shape.model_type == "llama":
        return theta, _llama3_factors(rope, theta, shape.head_dim)
    raise ModelError(f"{where}: rope type {kind} can't be exported, wanted default (or llama3 for a Llama)")


def _llama3_factors(rope: dict[str, Any], theta: float, head_dim: int) -> tuple[float, ...]:
    """By what llama.cpp divides each frequency so that it turns as transformers' llama3 rope does."""
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    context = float(rope["original_max_position_embeddings"])
    found = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        if wavelength < context / high:
            found.append(1.0)
        elif wavelength > context / low:
            found.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(found)
