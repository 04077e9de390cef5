"""What of a model folder an export needs to know, and which models can be exported. Others are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import trusted
from toolkit.errors import ModelError
from toolkit.models.families import FAMILIES, Config, Family, family_for, text_part
from toolkit.models.families.base import Part, RopeFactors
from toolkit.models.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Architecture:
    """A model's family, sizes and settings; `config` is all of its config.json, or of its text part's. `rope_factors`:
    tensors of the rope, by their names in a GGUF (`Family.rope`)."""

    family: Family
    class_name: str
    shape: ModelShape
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    rope_factors: RopeFactors
    dtype: str
    config: Config

    @property
    def arch(self) -> str:
        """GGUF's general.architecture."""
        return self.family.gguf_arch

    @property
    def tied(self) -> bool:
        return self.shape.tie_word_embeddings

    @cached_property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight as transformers names them, in the order in which a GGUF has them."""
        return self.shape.weights()

    @cached_property
    def gguf_parts(self) -> dict[str, tuple[Part, ...]]:
        """What a GGUF has of every weight, by transformers' name."""
        return self.family.gguf_parts(self.shape)

    def to_gguf(self, name: str, weight: Tensor) -> Tensor:
        """A weight with its rows and columns in llama.cpp's order. `name` is transformers'."""
        return self.rows_to_gguf(name, self.columns_to_gguf(name, weight.squeeze(1) if weight.dim() == 3 else weight))

    def rows_to_gguf(self, name: str, weight: Tensor) -> Tensor:
        """The same of its rows alone: of a LoRA B."""
        return self.family.to_gguf(name, weight, self.shape, self.config)

    def columns_to_gguf(self, name: str, weight: Tensor) -> Tensor:
        """The same of its columns alone: of a LoRA A."""
        return self.family.columns_to_gguf(name, weight, self.shape, self.config)

    def from_gguf(self, name: str, weight: Tensor) -> Tensor:
        """The inverse of `to_gguf`."""
        return self.family.from_gguf(name, weight, self.shape, self.config).reshape(self.tensors[name])


def read_config(folder: Path) -> Config:
    """config.json of a model folder, or what its text part's would be. Raises `ModelError`."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: no config.json; wanted a Hugging Face model folder")
    return text_part(trusted.read_config(path))


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a model folder, from its config.json alone.

    Raises `ModelError` that names what is not supported: another family, quantised weights, a rope or an activation
    that the GGUF would have to describe and can't.
    """
    config = read_config(folder)
    where = folder / "config.json"
    kind = str(config.get("model_type"))
    family = family_for(config)
    class_name = (config.get("architectures") or [family.class_name or kind])[0]
    if family.class_name is None or class_name != family.class_name:
        exported = sorted(one.class_name for one in FAMILIES.values() if one.class_name)
        raise ModelError(
            f"{where}: {class_name} ({kind}) can't be exported; what can: {', '.join(exported)}. "
            "The adapter itself works in PEFT as it is"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise ModelError(
            f"{where}: the base model's weights are quantised ({method}); an adapter is merged into 16-bit weights "
            "only: name the original model with --base"
        )
    shape = family.shape(config, str(where))
    family.check_export(config, shape, str(where))
    theta, factors = family.rope(config, shape, str(where))
    try:
        return Architecture(
            family=family,
            class_name=class_name,
            shape=shape,
            context_length=int(config["max_position_embeddings"]),
            rms_norm_eps=float(config[family.norm_eps]),
            rope_theta=theta,
            rope_factors=factors,
            dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
            config=config,
        )
    except KeyError as error:
        raise ModelError(f"{where}: {error.args[0]} is missing") from None
