"""What the product itself does not do and is measured against: training all weights, and a loss over all logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import set_seed

from bench.variants import Variant
from toolkit.engines.base import Choice, EngineReport, Loaded
from toolkit.engines.peft import load_base
from toolkit.engines.precision import weight_dtype
from toolkit.engines.registry import PLAIN
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe
from toolkit.training.methods.sft import SFT


def load_full(
    recipe: Recipe, variant: Variant, folder: Path, tokenizer: Any, precision: Choice, hardware: Hardware
) -> Loaded:
    """The model with every weight trainable, in the dtype the variant says."""
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
    return Loaded(model, tokenizer, report, PLAIN.packing(hardware))


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


def fp32_state_adamw(trainer: Any) -> Fp32StateAdamW:
    """By the trainer's arguments."""
    args = trainer.args
    return Fp32StateAdamW(
        [parameter for parameter in trainer.model.parameters() if parameter.requires_grad],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
    )


class Fp32StateAdamW(torch.optim.Optimizer):
    """AdamW with fp32 states over 16-bit weights: the textbook's 16 bytes of states for 8 of weights.

    torch's AdamW holds its states in the weights' dtype and bitsandbytes' pages them out of torch's sight. Decoupled
    weight decay; the new weight is computed in fp32, one tensor at a time, and rounded once."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(weight, dtype=torch.float32)
                    state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.float32)
                state["step"] += 1
                grad = weight.grad.float()
                first, second = state["exp_avg"], state["exp_avg_sq"]
                first.lerp_(grad, 1 - beta1)
                second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                root = (second / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                new = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
                new.addcdiv_(first, root, value=-group["lr"] / (1 - beta1 ** state["step"]))
                weight.copy_(new)
