"""An older card imposed on the one that is here: what Python asks of the card is answered as that one would."""

from __future__ import annotations

import importlib.util
from typing import Any

from toolkit.hardware import AMPERE
from toolkit.planning.cards import Card


class Properties:
    """A card's properties with another name, memory and capability."""

    def __init__(self, own: Any, card: Card) -> None:
        self._own = own
        self.name, self.total_memory = f"{card.title} (believed)", card.memory
        self.major, self.minor = card.capability

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def believe(card: Card) -> None:
    """Let this process take its CUDA card for an older `card`, before anything has asked what it is.

    Its memory, its compute capability, and below Ampere no bfloat16 and no flash attention of any kind. Code is still
    made for the card that is here, which runs no other: Triton and Inductor are told. What the card computes in is its
    own too.
    """
    import torch
    from torch._dynamo.device_interface import CudaInterface

    own, real = torch.cuda.get_device_properties, torch.cuda.get_device_capability()
    if importlib.util.find_spec("triton") is not None:
        from triton.runtime import driver

        driver.active.get_device_capability = lambda device=None: real  # torch's own asks for the properties
    torch.cuda.set_per_process_memory_fraction(min(1.0, card.memory / own(0).total_memory))
    properties: Any = lambda device=None: Properties(own(device or 0), card)  # noqa: E731
    capability: Any = lambda device=None: card.capability  # noqa: E731
    torch.cuda.get_device_properties, torch.cuda.get_device_capability = properties, capability
    inductor: Any = CudaInterface
    inductor.get_compute_capability = staticmethod(lambda device=None: 10 * real[0] + real[1])
    if card.capability < AMPERE:
        without: Any = lambda including_emulation=True: False  # noqa: E731
        torch.cuda.is_bf16_supported = without
        inductor.is_bf16_supported = staticmethod(without)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
