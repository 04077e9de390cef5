"""What the product itself does not do and is measured against: training all weights, and a loss over all logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from toolkit.engines.base import Choice, EngineReport, Loaded
from toolkit.engines.precision import weight_dtype
from toolkit.training.methods.sft import SFT

if TYPE_CHECKING:
    from bench.variants import Variant
    from toolkit.hardware import Hardware
    from toolkit.recipe.schema import Recipe


def load_full(
    recipe: Recipe, variant: Variant, folder: Path, tokenizer: Any, precision: Choice, hardware: Hardware
) -> Loaded:
    """The model with every weight trainable, in the dtype the variant says."""
    from transformers import set_seed

    from toolkit.engines.peft import load_base

    set_seed(recipe.train.seed)
    model = load_base(recipe, folder, precision, hardware)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    held = weight_dtype(recipe, precision.value)
    if variant.trained == "all 16-bit":
        # loss scaling can't unscale 16-bit gradients and there is nothing to autocast
        precision = Choice("none", "weights and gradients are in 16 bits themselves")
    count = sum(parameter.numel() for parameter in model.parameters())
    report = EngineReport(
        engine=Choice("full", "every weight trains"),
        precision=precision,
        weights=held,
        attention=model.config._attn_implementation,
        trainable=count,
        total=0,
        expected_layers=model.config.num_hidden_layers,
    )
    return Loaded(model, tokenizer, report)


class AllLogits(SFT):
    """transformers' own loss: the logits of every token, in fp32, at one time."""

    def loss(self, model: Any, inputs: dict[str, Any], items: Any) -> Any:
        settings = {} if items is None else {"num_items_in_batch": items}
        outputs = model(**inputs, use_cache=False, **settings)
        if outputs.loss is not None:
            return outputs.loss
        logits, labels = outputs.logits[:, :-1].float(), inputs["labels"][:, 1:]
        total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        count = (labels != -100).sum() if items is None else items
        return total / torch.as_tensor(count).clamp(min=1)


def fp32_state_adamw(trainer: Any) -> Any:
    from bench.optim import Fp32StateAdamW

    args = trainer.args
    return Fp32StateAdamW(
        [parameter for parameter in trainer.model.parameters() if parameter.requires_grad],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
    )
