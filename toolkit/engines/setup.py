"""How a recipe trains on an engine and a device: all that memory and time depend on but for how many tokens there are.

`toolkit.planning.setup.setup_of` makes one from a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from toolkit.engines.base import Engine
    from toolkit.models.shape import ModelShape

Held = Literal["nf4", "16-bit", "fp32"]
Checkpointing = Literal["off", "on", "offloaded"]
Products = Literal["separate", "fused", "float8"]


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to train a model.

    `held`: how the frozen base weights are. `trainable`: parameters of the adapter. `checkpointed`: how many layers,
    the first ones, recompute where checkpointing is on; None for all. `element`: bytes of an activation, 2 under bf16
    or fp16 and 4 under fp32. `dropped`: input features of a layer's modules that have LoRA dropout, summed. `cuda`: on
    a GPU. `flash`: attention may be flash attention. `packed`: rows are packed, and the loss is the toolkit's own.
    `products`: as `train.products`, once decided. `dynamic`: compiled layers have one code for all lengths of packed
    micro-batches, and `recorded`: each length is, where no layer recomputes. `filled`: what micro-batches are filled up
    to a multiple of; None: what the engine wants. `pace`: how fast the card is, an H200 being 1. `full_logits`: the
    loss holds all logits at once, as older trainers do. `math_attention`: attention's scores are held whole in fp32, as
    SDPA does without flash attention where keys serve several query heads and no mask is given (rows of one length).
    `ranks`: how many devices share an update.
    """

    shape: ModelShape
    engine: Engine
    held: Held
    trainable: int
    checkpointing: Checkpointing
    checkpointed: int | None = None
    optim: str = "adamw_torch_fused"
    element: int = 2
    dropped: int = 0
    cuda: bool = True
    flash: bool = True
    packed: bool = False
    products: Products = "separate"
    dynamic: bool = True
    recorded: bool = False
    filled: int | None = None
    pace: float = 1.0
    full_logits: bool = False
    math_attention: bool = False
    ranks: int = 1

    @property
    def replayed(self) -> bool:
        """Whether micro-batches of a length that was recorded are replayed."""
        return self.recorded and self.checkpointing == "off"

    @property
    def recomputed(self) -> float:
        """The share of the layers that run forward again."""
        if self.checkpointing == "off":
            return 0.0
        return 1.0 if self.checkpointed is None else self.checkpointed / self.shape.num_hidden_layers

    @property
    def whole_head(self) -> bool:
        """Whether the head runs over every token, not only those with a label."""
        return self.full_logits or (self.engine.whole_head and not self.packed)

    def recomputing(self, layers: int | None) -> Setup:
        """The same with so many layers recomputing, the first ones; None: as it is."""
        if layers is None:
            return self
        return replace(self, checkpointing="on" if layers else "off", checkpointed=layers)

    def filled_up(self, tokens: int) -> int:
        """Tokens of a packed micro-batch of `tokens`, with what it is filled up with."""
        multiple = self.filled or self.engine.multiple(
            tokens, cuda=self.cuda, dynamic=self.dynamic, recorded=self.replayed
        )
        return -(-tokens // multiple) * multiple
