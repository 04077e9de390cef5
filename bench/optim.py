"""AdamW with fp32 states over 16-bit weights: the optimizer of the textbook's 16 bytes of states for 8 of weights.

torch's AdamW holds its states in the weights' dtype and bitsandbytes' pages them out of torch's sight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Fp32StateAdamW(torch.optim.Optimizer):
    """Decoupled weight decay; the new weight is computed in fp32, one tensor at a time, and rounded once."""

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
