"""Gradient checkpointing of some layers, as many as memory demands (`toolkit.planning.budget`), or of all."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


def checkpoint_all(model: Any) -> None:
    """Turn gradient checkpointing on in all decoder layers of a PEFT-wrapped model, while it trains."""
    base = model.get_base_model()
    base.config.use_cache = False  # which layers that recompute have no use for
    base.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in base.model.layers:
        layer.gradient_checkpointing = True


class CheckpointFirst(TrainerCallback):
    """Leaves gradient checkpointing on in the first `count` decoder layers when training begins.

    The first: backward reaches them last, when what the other layers kept is gone already.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        decoder = model.get_base_model().model
        decoder.gradient_checkpointing = False  # its layers decide, each for itself
        for number, layer in enumerate(decoder.layers):
            layer.gradient_checkpointing = number < self.count
