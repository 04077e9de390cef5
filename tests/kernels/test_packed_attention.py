"""Which kernel attends over packed rows, and what is said of it."""

from __future__ import annotations

import pytest
import torch

from toolkit.engines.attention import named
from toolkit.hardware import Gpu, Hardware
from toolkit.kernels import flash4
from toolkit.kernels import packed_attention as attention

CPU = torch.device("cpu")


def card(*capability: int) -> Hardware:
    return Hardware(Gpu("Some card", 80 * 2**30, (capability[0], capability[1])), "cpu", 8, True, 2**36)


@pytest.mark.parametrize(
    ("flash", "agrees", "wanted", "kernel"),
    [
        (False, True, True, "rows"),
        (True, False, True, "flash"),
        (True, True, True, "flash4"),
        (True, True, False, "flash"),
    ],
)
def test_the_newest_that_is_there_and_agrees(
    monkeypatch: pytest.MonkeyPatch, flash: bool, agrees: bool, wanted: bool, kernel: str
) -> None:
    monkeypatch.setattr(attention, "has_flash", lambda device, dtype: flash)
    monkeypatch.setattr(attention, "flash4_agrees", lambda device, dtype, size: agrees)
    assert attention.find_kernel(CPU, torch.bfloat16, 128, others=wanted) == kernel


def test_not_on_a_cpu() -> None:
    assert attention.find_kernel(CPU, torch.bfloat16, 128) == "rows"
    assert not flash4.flash4_agrees(CPU, torch.bfloat16, 128)


def test_who_could_have_flash4_is_told() -> None:
    assert "pip install -e '.[flash4]'" in named("flash", card(9, 0))
    assert "pip install" not in named("flash", card(8, 9)) + named("flash4", card(9, 0)) + named("flash", None)


def test_the_operators_shapes_are_what_torch_compile_is_told() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k = torch.empty(10, 4, 64, dtype=torch.bfloat16), torch.empty(10, 2, 64, dtype=torch.bfloat16)
        edges = torch.zeros(3, dtype=torch.int32)
        out, logs = flash4.flash4_rows(q, k, k, edges, 10, 0.1)
        assert (out.shape, out.dtype, logs.shape, logs.dtype) == (q.shape, q.dtype, (4, 10), torch.float32)
        made = flash4.flash4_rows_backward(out, q, k, k, out, logs, edges, 10, 0.1)
        assert [part.shape for part in made] == [q.shape, k.shape, k.shape]


def test_another_version_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bool:
        raise TypeError("another signature")

    flash4.flash4_agrees.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(flash4, "agrees", fails)
    assert not flash4.flash4_agrees(torch.device("cuda", 0), torch.bfloat16, 128)
    flash4.flash4_agrees.cache_clear()
