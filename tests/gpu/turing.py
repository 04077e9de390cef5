"""`python -m tests.gpu.turing run RECIPE ...`: toolkit's command line on a card that passes for a T4.

Compute capability 7.5 wherever Python asks for it, 14.56 GiB, no bfloat16, no flash attention of any kind. What the
card computes in is its own: tensor cores and Triton's code are not a T4's.
"""

from __future__ import annotations

from typing import Any

import torch

from toolkit.planning.cards import CARDS

CARD = CARDS["t4"]


class Properties:
    """A card's properties with another name, memory and capability."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self.name, self.total_memory = "Tesla T4 (believed)", CARD.memory
        self.major, self.minor = CARD.capability

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def believe() -> None:
    """Let this process take its card for a T4."""
    properties = torch.cuda.get_device_properties
    torch.cuda.set_per_process_memory_fraction(CARD.memory / properties(0).total_memory)
    believed: Any = lambda device=None: Properties(properties(device or 0))  # noqa: E731
    torch.cuda.get_device_properties = believed
    torch.cuda.get_device_capability = lambda device=None: CARD.capability
    torch.cuda.is_bf16_supported = lambda *given, **named: False
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


if __name__ == "__main__":
    believe()
    from toolkit.commands.main import main

    main()
