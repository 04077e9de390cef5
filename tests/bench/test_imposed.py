"""A card that is believed to be an older one, on a machine that has none."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.device_interface import CudaInterface

from bench.imposed import believe
from toolkit.hardware import detect
from toolkit.kernels.packed_attention import has_flash
from toolkit.planning.cards import CARDS

H200 = SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30, major=9, minor=0, multi_processor_count=132)


def capability(device: Any = None) -> tuple[int, int]:
    """As torch has it: out of the properties, whoever has them by then."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.major, properties.minor


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What part of its memory a process may take of the card that Python is told of."""
    given: list[float] = []
    # Triton's driver, where torch brings it, can't be made without a card's
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: H200)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    for name in ("get_compute_capability", "is_bf16_supported"):
        monkeypatch.setattr(CudaInterface, name, CudaInterface.__dict__[name])
    kept = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.cudnn_sdp_enabled()
    detect.cache_clear()
    yield given
    torch.backends.cuda.enable_flash_sdp(kept[0])
    torch.backends.cuda.enable_cudnn_sdp(kept[1])
    detect.cache_clear()


def test_a_t4(share: list[float]) -> None:
    t4 = CARDS["t4"]
    believe(t4)
    gpu = detect().gpu
    assert gpu is not None and (gpu.memory, gpu.capability, gpu.has_bf16) == (t4.memory, (7, 5), False)
    assert share == [pytest.approx(14.56 / 139, rel=1e-3)]
    assert not torch.cuda.is_bf16_supported() and not has_flash(torch.device("cuda", 0), torch.float16)
    properties: Any = torch.cuda.get_device_properties(0)
    assert (properties.major, properties.multi_processor_count) == (7, 132)


def test_inductor_makes_no_graph_of_bfloat16_and_code_for_the_card_that_is_there(share: list[float]) -> None:
    believe(CARDS["t4"])
    assert not CudaInterface.is_bf16_supported(including_emulation=False)
    assert CudaInterface.get_compute_capability() == 90, "the card runs no code for 7.5"


def test_triton_makes_code_for_the_card_that_is_there(share: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver keeps, once it is made, what torch has for a capability at that moment."""

    class Driver:
        def __init__(self) -> None:
            self.get_device_capability = torch.cuda.get_device_capability

    class Lazy:
        @functools.cached_property
        def active(self) -> Driver:
            return Driver()

    runtime: Any = ModuleType("triton.runtime")
    runtime.driver = Lazy()
    triton = ModuleType("triton")
    triton.__spec__ = ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.runtime", runtime)
    believe(CARDS["t4"])
    assert runtime.driver.active.get_device_capability(0) == (9, 0)
    assert torch.cuda.get_device_capability() == (7, 5)


def test_a_card_with_bfloat16_keeps_it(share: list[float]) -> None:
    believe(CARDS["l4"])
    assert torch.cuda.is_bf16_supported() and torch.backends.cuda.flash_sdp_enabled()
    assert torch.cuda.get_device_capability() == (8, 9)
