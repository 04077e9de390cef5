"""Dropout whose mask can be made again, for compiled layers: nothing of it is kept for backward but one number.

torch.nn.Dropout under torch.compile keeps a byte for each element from forward to backward. Here an element is dropped
by a hash of its place and a number drawn for the call, a dozen integer operations that a compiler puts into the kernels
that read the input anyway, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

# the multipliers of the integer hash "lowbias32" (Chris Wellons, public domain), as int32
FIRST, SECOND = (number - (1 << 32) * (number >> 31) for number in (0x7FEB352D, 0x846CA68B))


class HashedDropout(nn.Dropout):
    """torch.nn.Dropout with another source of chance: seeded by torch's generator, once a call."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """input [..., features]; the same shape with a share `p` of elements 0 and the others times 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return input
        seed = torch.randint(0, 2**31 - 1, (1,), device=input.device).to(torch.int32)
        return torch.where(kept(input, seed, self.p), input * (1 / (1 - self.p)), 0)


def kept(x: torch.Tensor, seed: torch.Tensor, p: float) -> torch.Tensor:
    """Which elements of x [..., features] stay, when each goes with probability p. `seed`: an int32 tensor [1]."""
    features = x.shape[-1]
    rows = torch.arange(x.numel() // features, dtype=torch.int32, device=x.device)
    place = rows[:, None] * features + torch.arange(features, dtype=torch.int32, device=x.device)
    # not a product first: the compiler would put both factors of it into one number, too large for an int32
    bits = place ^ seed
    bits = (bits ^ _shifted(bits, 16)) * FIRST
    bits = (bits ^ _shifted(bits, 15)) * SECOND
    bits = bits ^ _shifted(bits, 16)
    return ((bits & 0x7FFFFFFF) >= round(p * 2**31)).view(x.shape)


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    return (bits >> by) & ((1 << (32 - by)) - 1)  # int32 shifts in copies of its sign


def hash_dropout(layers: Iterable[nn.Module]) -> None:
    """Give the adapters of PEFT-wrapped `layers` dropout of this kind, with the shares they have."""
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, LoraLayer):
                for name, dropout in module.lora_dropout.items():
                    if type(dropout) is nn.Dropout:
                        module.lora_dropout[name] = HashedDropout(dropout.p).train(dropout.training)
