"""Base columns: the model without its adapter, and the proof that it is without.

PyTorch and PEFT are imported where they are used: loading them takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from toolkit.errors import ToolkitError


class AdapterError(ToolkitError, AssertionError):
    """Adapters could not be switched off or on as an evaluation needs."""


@contextlib.contextmanager
def base_columns(model: Any) -> Iterator[None]:
    """Switch a PEFT model's adapters off for the block, and prove it; a model without adapters passes as it is.

    Proved inside: every adapter layer says that it is disabled; every LoRA layer gives exactly what its base layer
    gives; and the logits differ from the adapted ones when an adapter is not all zero, unless it
    changes no layer's output at all (so small that rounding swallows it). Proved after: the adapters are back.

    Raises `AdapterError` when any of this does not hold, and when the base weights are not there any more: biases were
    trained in place, or adapters are merged (taking them out again leaves rounding errors behind).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        yield
        return
    biases = {config.bias for config in model.peft_config.values() if getattr(config, "bias", "none") != "none"}
    trained = any(_nonzero(layer) for layer in layers)
    if biases and trained:
        raise AdapterError(f'lora.bias = "{biases.pop()}" changes the base model itself; evaluate it before training')
    if any(layer.merged for layer in layers):
        raise AdapterError("the adapters are merged into the base weights; load them unmerged")
    was_disabled = [layer.disable_adapters for layer in layers]
    adapted = _logits(model)
    changes = trained and any(not _same_as_base(layer) for layer in layers)
    with model.disable_adapter():
        still = [layer for layer in layers if not layer.disable_adapters]
        different = [layer for layer in layers if not _same_as_base(layer)]
        if still or different:
            raise AdapterError(f"{len(still)} adapter layers are still on, {len(different)} still change their input")
        if changes and adapted.equal(_logits(model)):
            raise AdapterError("the logits are the same with and without the adapter, which is not zero")
        yield
    if [layer.disable_adapters for layer in layers] != was_disabled:
        raise AdapterError("the adapters did not come back on")


def _nonzero(layer: Any) -> bool:
    """Whether any second factor (zero at the start of training) of a LoRA layer is not zero."""
    parts = [getattr(layer, name, {}) for name in ("lora_B", "lora_embedding_B")]
    weights = [getattr(inner, "weight", inner) for part in parts for inner in part.values()]
    return any(bool(weight.detach().any()) for weight in weights)


def _logits(model: Any) -> Any:
    """Logits [8, vocabulary] of a fixed short input, in eval mode."""
    import torch

    embeddings = model.get_input_embeddings().weight
    ids = torch.arange(1, 9, device=embeddings.device)[None] % embeddings.shape[0]
    with _eval_mode(model), torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits[0].float().cpu()


def _same_as_base(layer: Any) -> bool:
    """Whether a LoRA layer over a linear map gives exactly what its base layer gives; others are taken to."""
    import torch

    base = layer.get_base_layer()
    if not isinstance(base, torch.nn.Linear):
        return True
    with _eval_mode(layer), torch.no_grad():
        x = torch.linspace(-1, 1, base.in_features, device=base.weight.device)[None]
        x = x.to(next((p.dtype for p in base.parameters() if p.is_floating_point()), torch.bfloat16))
        return bool(torch.equal(layer(x), base(x)))


@contextlib.contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
