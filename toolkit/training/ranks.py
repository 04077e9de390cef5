"""An update over several ranks: each one's share of its chats, and the sum of what they made of it.

Every rank draws the same chats in the same order, those of the whole update, and trains on its share, which has about
as many tokens as any other's. The loss is divided by the update's items over all ranks, so gradients only have to be
summed. That is one all-reduce of one flat tensor, once an update, where DistributedDataParallel would reduce in hooks
of each micro-batch's backward pass: gradients of adapters are small and micro-batches many, recorded CUDA graphs sum
gradients where no hook is called, and a rank may have more micro-batches than another, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from toolkit.planning.micro_batches import spread
from toolkit.ranks import here
from toolkit.training.methods.base import Collate
from toolkit.training.packing import MICRO_BATCHES


class RankShare:
    """Collates this rank's share of an update's chats.

    `collate` makes packed micro-batches of all of them or, where `chats` is a number, a padded one of so many at most;
    `items` counts what the loss of a padded one is a mean over. Returns {"micro_batches", "trained", "real_tokens"} as
    `toolkit.training.packing.PackingCollator` does, of this rank.
    """

    def __init__(self, collate: Collate, items: Callable[[dict[str, Any]], torch.Tensor], chats: int | None) -> None:
        self.collate, self.items, self.chats = collate, items, chats

    def __call__(self, update: Sequence[dict[str, Any]]) -> dict[str, Any]:
        ranks = here()
        tokens = [sum(len(ids) for ids, _ in chat["rows"]) for chat in update]
        mine = [update[i] for i in spread(tokens, ranks.size)[ranks.rank]]
        if self.chats is None:
            return self.collate(mine)
        padded = [self.collate(mine[start : start + self.chats]) for start in range(0, len(mine), self.chats)]
        return {
            MICRO_BATCHES: padded,
            "trained": sum(int(self.items(one)) for one in padded),
            "real_tokens": sum(one.pop("real_tokens") for one in padded),
        }


class Gradients:
    """Sums over ranks the gradients of `parameters`, and with them a loss, in a flat float32 tensor."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)
        sizes = [parameter.numel() for parameter in self.parameters]
        self.flat = torch.zeros(sum(sizes) + 1, device=self.parameters[0].device)
        parts = self.flat[:-1].split(sizes)
        self.parts = [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]

    def sum(self, loss: torch.Tensor) -> torch.Tensor:
        """The summed loss, a scalar; each parameter's gradient becomes the sum, where it is.

        A rank that had no micro-batch adds nothing. A NaN of one rank is all ranks'.
        """
        gradients = []
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        torch._foreach_copy_(self.parts, gradients)
        self.flat[-1] = loss
        here().add(self.flat)
        torch._foreach_copy_(gradients, self.parts)
        return self.flat[-1].clone()


def own_chance(seed: int, update: int, rank: int) -> None:
    """Seed torch's generators for this rank and update, so that ranks drop different features.

    The first rank's go on as on one card; they are what a checkpoint holds, and a run with other ranks goes on with.
    """
    torch.manual_seed((seed * 1_000_003 + update) * 1_009 + rank)
