"""Models of families that are not known: trained padded by their own forward, planned from what their files say.

Neither packed nor exported: for those it has to be known what a layer computes, not only how large it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.manifest import safetensors_shapes
from toolkit.models.families.base import Config, Family, find_size, size_of
from toolkit.models.shape import Layer, ModelShape

_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_FFN = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "hidden_dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOWER = re.compile(r"vision|visual|audio|image")
_WEIGHT = re.compile(r"(?:^|.*?\.)(?:layers|h|blocks?|layer)\.(\d+)\.(.+)")
_TABLE = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings?|lm_head|output|embed_out)\.weight$"
)
_ROUTER = re.compile(r"\.(?:gate|router)\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)\.weight$")


class Unknown(Family):
    """Sizes by the names that config files give them. The modules are those of the weights, where they are here, and
    Llama's otherwise, with as many experts as config.json says."""

    model_type = "unknown"

    def shape(self, config: Config, where: str) -> ModelShape:
        kind = str(config.get("model_type", "none"))
        if kind == "none":
            raise ModelError(f"{where}: model_type is missing, so nothing is known of the model")
        text = config.get("text_config")
        own: Config = {**config, **text} if isinstance(text, dict) else config
        hidden = size_of(own, _HIDDEN, where)
        heads = find_size(own, _HEADS, where) or 1
        shape = ModelShape(
            model_type=kind,
            hidden_size=hidden,
            intermediate_size=find_size(own, _FFN, where) or 4 * hidden,
            num_hidden_layers=size_of(own, _LAYERS, where),
            num_attention_heads=heads,
            num_key_value_heads=find_size(own, _KV_HEADS, where) or heads,
            head_dim=find_size(own, ("head_dim",), where) or max(1, hidden // heads),
            vocab_size=size_of(own, ("vocab_size",), where),
            tie_word_embeddings=bool(own.get("tie_word_embeddings", True)),
            biased=self.attention_bias if own.get("attention_bias") else (),
            known=False,
        )
        stored = safetensors_shapes(Path(where).parent)
        return _as_stored(shape, stored) if stored else _as_said(shape, own, where)

    def not_packed(self, config: Config, longest: int) -> str | None:
        return f"{config.get('model_type')} is not a known family, so how its layers take packed rows is not known"


def _as_said(shape: ModelShape, config: Config, where: str) -> ModelShape:
    """With the experts that config.json says there are, all at work for each token: PEFT puts adapters on them too."""
    experts = find_size(config, _EXPERTS, where)
    if experts is None:
        return shape
    ffn = find_size(config, ("moe_intermediate_size",), where) or shape.intermediate_size
    dense, hidden = shape.layer(0), shape.hidden_size
    linears = [linear for linear in dense.linears if linear[0].startswith("self_attn.")]
    for expert in range(experts):
        for name, fan_in, fan_out in (("gate_proj", hidden, ffn), ("up_proj", hidden, ffn), ("down_proj", ffn, hidden)):
            linears.append((f"mlp.experts.{expert}.{name}", fan_in, fan_out))
    return replace(shape, layers=(Layer(tuple(linears), dense.norms, (("mlp.gate.weight", (experts, hidden)),)),))


def _as_stored(shape: ModelShape, stored: dict[str, tuple[int, ...]]) -> ModelShape:
    """With the modules of the weights in the folder: matrices of a layer are linear modules, but a router's."""
    layers: dict[int, list[list[Any]]] = defaultdict(lambda: [[], [], []])
    outer, tied = [], True
    for name, size in stored.items():
        module = name.removesuffix(".weight")
        if (match := _WEIGHT.fullmatch(name)) and not _TOWER.search(name):
            linears, norms, others = layers[int(match[1])]
            inner = match[2].removesuffix(".weight")
            if len(size) == 2 and module != name and not _ROUTER.search(name):
                linears.append((inner, size[1], size[0]))
            elif len(size) == 1 and module != name:
                norms.append((inner, size[0]))
            else:
                others.append((match[2], size))
        elif _TABLE.search(name) and sorted(size) == sorted((shape.vocab_size, shape.hidden_size)):
            tied = tied and not _HEAD.search(name)
        else:
            outer.append((name, size))
    found = tuple(Layer(*map(tuple, layers[index])) for index in sorted(layers))
    if not found or not any(layer.linears for layer in found):
        return shape
    one = (found[0],) if len(set(found)) == 1 else found
    return replace(
        shape, num_hidden_layers=len(found), layers=one, outer=tuple(outer), tie_word_embeddings=tied, biased=()
    )


UNKNOWN = Unknown()
