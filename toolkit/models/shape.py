"""A model's sizes, and its exact numbers of parameters."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from toolkit.recipe.schema import LoraSection

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
LAYERS = "model.layers"


@dataclass(frozen=True, slots=True)
class Layer:
    """What a decoder layer has, by names within it.

    linears: (module, in, out) features of the modules that LoRA can take. norms: (module, weights). others: (weight,
    its shape) of whatever else there is, as a convolution's.
    """

    linears: tuple[tuple[str, int, int], ...]
    norms: tuple[tuple[str, int], ...]
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder. Names as in config.json.

    `layers`: one that all layers are like, or each; empty: attention and a gated MLP, as Llama has them. `outer`: the
    weights that are neither in a layer nor the embedding or the head, in their order; empty: the last norm.
    """

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
    qk_norm: bool = False  # queries and keys pass a norm
    layers: tuple[Layer, ...] = ()
    outer: tuple[tuple[str, tuple[int, ...]], ...] = ()
    known: bool = True  # of a family that is known

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> ModelShape:
        """A shape that was kept as `dataclasses.asdict` makes it, tuples being lists."""
        layers = tuple(
            Layer(_tuples(layer["linears"]), _tuples(layer["norms"]), _tuples(layer["others"]))
            for layer in kept.get("layers", ())
        )
        own = {"biased": tuple(kept.get("biased", ())), "layers": layers, "outer": _tuples(kept.get("outer", ()))}
        return cls(**{**kept, **own})

    @property
    def attention_size(self) -> int:
        """Features of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    def layer(self, index: int) -> Layer:
        if not self.layers:
            return gated_layer(self)
        return self.layers[index] if len(self.layers) > 1 else self.layers[0]

    def each_layer(self) -> list[Layer]:
        return [self.layer(index) for index in range(self.num_hidden_layers)]

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) features of a layer's linear modules by the last part of their name: of all kinds of layers."""
        return {
            _last(name): (fan_in, fan_out) for layer in self.each_layer() for name, fan_in, fan_out in layer.linears
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of all layers' linear modules, without biases: what matrix products and NF4 see."""
        return _counts(self).linear

    @property
    def layer_features(self) -> float:
        """What goes into and comes out of one layer's linear modules, in the mean."""
        return _counts(self).features / self.num_hidden_layers

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
        """Norms, biases and whatever else is no matrix of a linear module."""
        return self.parameters - self.linear_parameters - self.embedding_parameters

    @property
    def parameters(self) -> int:
        """All distinct parameters, as `sum(p.numel() for p in model.parameters())` counts them."""
        return _counts(self).all

    def modules(self) -> Iterator[tuple[str, int, int]]:
        """(full name, in, out) of every module that LoRA can take, the embedding and the head at the ends."""
        yield "model.embed_tokens", self.vocab_size, self.hidden_size
        for index, layer in enumerate(self.each_layer()):
            for name, fan_in, fan_out in layer.linears:
                yield f"{LAYERS}.{index}.{name}", fan_in, fan_out
        yield "lm_head", self.hidden_size, self.vocab_size

    def norms(self) -> Iterator[tuple[str, int]]:
        """(full name, weights) of every norm."""
        for index, layer in enumerate(self.each_layer()):
            for name, size in layer.norms:
                yield f"{LAYERS}.{index}.{name}", size
        for name, outer in self._outer():
            if len(outer) == 1 and name.endswith(".weight"):
                yield name.removesuffix(".weight"), outer[0]

    def _outer(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return self.outer or (("model.norm.weight", (self.hidden_size,)),)

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight as transformers names them, in the order in which a GGUF has them."""
        matrix = (self.vocab_size, self.hidden_size)
        found: dict[str, tuple[int, ...]] = {} if self.tie_word_embeddings else {"lm_head.weight": matrix}
        found["model.embed_tokens.weight"] = matrix
        for index, layer in enumerate(self.each_layer()):
            prefix = f"{LAYERS}.{index}"
            for name, fan_in, fan_out in layer.linears:
                found[f"{prefix}.{name}.weight"] = (fan_out, fan_in)
                if _last(name) in self.biased:
                    found[f"{prefix}.{name}.bias"] = (fan_out,)
            found |= {f"{prefix}.{name}.weight": (size,) for name, size in layer.norms}
            found |= {f"{prefix}.{name}": size for name, size in layer.others}
        return found | dict(self._outer())

    def lora_targets(self, target_modules: str | Sequence[str]) -> list[tuple[str, int, int]]:
        """The modules that PEFT puts an adapter on: all-linear (never the head), a regular expression, or names."""
        every = list(self.modules())
        if target_modules == "all-linear":
            return every[1:-1]
        if isinstance(target_modules, str):
            return [module for module in every if re.fullmatch(target_modules, module[0])]
        return [module for module in every if any(is_named(module[0], name) for name in target_modules)]

    def _has(self, name: str) -> bool:
        return bool(self.lora_targets([name]))

    def trainable_parameters(self, lora: LoraSection) -> int:
        """Parameters that train with this adapter: A and B, DoRA's magnitudes, biases and whole saved modules.

        Raises `ModelError` when `target_modules` matches nothing in this model, or one of its names doesn't.
        """
        wanted, names = lora.target_modules, ", ".join(self.linears)
        targets = self.lora_targets(wanted)
        if not targets:
            said = re.findall(r"[\w.-]+", wanted) if isinstance(wanted, str) else []
            meant = ", ".join(f'"{name}"' for name in said) if said and all(map(self._has, said)) else ""
            near = f" (a text is a pattern for whole names; did you mean [{meant}]?)" if meant else ""
            raise ModelError(f"lora.target_modules: {wanted!r} matches no module{near}; this model has {names}")
        # the run refuses a name that is no module's, so a plan without it is of another run
        lacking = [] if isinstance(wanted, str) else [name for name in wanted if not self._has(name)]
        if lacking:
            near = did_you_mean(lacking[0], self.linears)
            raise ModelError(f"lora.target_modules: the model has no module {lacking[0]}{near}; it has {names}")
        count = sum(lora.r * (fan_in + fan_out) for _, fan_in, fan_out in targets)
        if lora.use_dora:
            count += sum(fan_out for _, _, fan_out in targets)
        biased = {"none": [], "all": list(self.modules()), "lora_only": targets}[lora.bias]
        count += sum(fan_out for name, _, fan_out in biased if _last(name) in self.biased)
        sizes = {name: self._size(name, fan_in, fan_out) for name, fan_in, fan_out in self.modules()}
        for name, size in (*sizes.items(), *self.norms()):
            if name.endswith(tuple(lora.modules_to_save)):  # PEFT does not ask for a dot before the name here
                count += size
        return count

    def _size(self, name: str, fan_in: int, fan_out: int) -> int:
        return fan_in * fan_out + (fan_out if _last(name) in self.biased else 0)


class _Counts(NamedTuple):
    linear: int
    features: int
    all: int


@functools.cache  # as a plan asks for hundreds of micro-batches of one model
def _counts(shape: ModelShape) -> _Counts:
    sizes = [(fan_in, fan_out) for layer in shape.each_layer() for _, fan_in, fan_out in layer.linears]
    return _Counts(sum(map(prod, sizes)), sum(map(sum, sizes)), sum(map(prod, shape.weights().values())))


def gated_layer(shape: ModelShape) -> Layer:
    """Attention and a gated MLP, and norms, as Llama has them."""
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    heads = (("self_attn.q_norm", shape.head_dim), ("self_attn.k_norm", shape.head_dim)) if shape.qk_norm else ()
    linears = (
        ("self_attn.q_proj", hidden, shape.attention_size),
        ("self_attn.k_proj", hidden, shape.key_value_size),
        ("self_attn.v_proj", hidden, shape.key_value_size),
        ("self_attn.o_proj", shape.attention_size, hidden),
        ("mlp.gate_proj", hidden, ffn),
        ("mlp.up_proj", hidden, ffn),
        ("mlp.down_proj", ffn, hidden),
    )
    return Layer(linears, (("input_layernorm", hidden), ("post_attention_layernorm", hidden), *heads))


def is_named(module: str, name: str) -> bool:
    """Whether PEFT means a module, as model.layers.0.self_attn.q_proj, by a name, as q_proj or self_attn.q_proj."""
    return module == name or module.endswith(f".{name}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, (list, tuple)) else value
