"""A model's sizes, and its exact numbers of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import ModelError

if TYPE_CHECKING:
    from toolkit.recipe.schema import LoraSection

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a dense decoder with gated MLP, as all known families are. Names as in config.json."""

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
    qk_norm: bool = False  # queries and keys pass a norm of head_dim weights each

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
            yield from self._layer_modules(layer)
        yield "lm_head", self.hidden_size, self.vocab_size

    def _layer_modules(self, layer: int) -> Iterator[tuple[str, int, int]]:
        for name, (fan_in, fan_out) in self.linears.items():
            block = "self_attn" if name in ATTENTION else "mlp"
            yield f"model.layers.{layer}.{block}.{name}", fan_in, fan_out

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

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight as transformers names them, in the order in which a GGUF has them."""
        matrix = (self.vocab_size, self.hidden_size)
        found: dict[str, tuple[int, ...]] = {} if self.tie_word_embeddings else {"lm_head.weight": matrix}
        found["model.embed_tokens.weight"] = matrix
        norms = {f"{name}.weight": (size,) for name, size in self.norms()}
        for layer in range(self.num_hidden_layers):
            for name, fan_in, fan_out in self._layer_modules(layer):
                found[f"{name}.weight"] = (fan_out, fan_in)
                if name.rpartition(".")[2] in self.biased:
                    found[f"{name}.bias"] = (fan_out,)
            prefix = f"model.layers.{layer}."
            found |= {name: size for name, size in norms.items() if name.startswith(prefix)}
        return found | {"model.norm.weight": norms["model.norm.weight"]}

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
