"""xformers over packed rows: when it is taken, what it is handed, and what is said where it is not used.

Its kernels need a card (tests/gpu/test_xformers.py); here something that attends as they would stands for them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from toolkit.engines.attention import attention_over_rows, named
from toolkit.engines.base import Choice
from toolkit.hardware import Gpu, Hardware
from toolkit.kernels import packed_attention, row_attention, xformers_rows
from toolkit.recipe.schema import ModelSection, Recipe

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
T4 = Hardware(Gpu("Tesla T4", 15 * 2**30, (7, 5)), "cpu", 2, False, 2**34)


@dataclass
class Rows:
    """As xformers' `_SeqLenInfo`."""

    seqstart: torch.Tensor
    max_seqlen: int
    min_seqlen: int
    seqstart_py: list[int]


@dataclass
class Mask:
    """As xformers' `BlockDiagonalCausalMask`."""

    q_seqinfo: Rows
    k_seqinfo: Rows


class Fmha:
    """xformers.ops.fmha with PyTorch's attention in place of its kernels, whose gradients of values are `off` by."""

    attn_bias = SimpleNamespace(_SeqLenInfo=Rows, BlockDiagonalCausalMask=Mask)
    cutlass = SimpleNamespace(FwOp="forward", BwOp="backward")

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.heads: set[tuple[int, ...]] = set()

    def memory_efficient_attention_forward_requires_grad(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: Mask, *, scale: float, op: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert op == "forward"
        self.heads.add((q.shape[2], k.shape[2], v.shape[2]))
        out = row_attention._usual(q[0], k[0], v[0], attn_bias.q_seqinfo.seqstart, scale)
        return out[None], torch.zeros(0)

    def memory_efficient_attention_backward(
        self, grad: torch.Tensor, out: torch.Tensor, lse: torch.Tensor,
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: Mask, *, scale: float, op: str,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        assert op == "backward" and out.shape == q.shape
        made = row_attention._usual_backward(grad[0], q[0], k[0], v[0], attn_bias.k_seqinfo.seqstart, scale)
        return made[0][None], made[1][None], made[2][None] * (1 + self.off)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    xformers_rows.why_not.cache_clear()
    yield
    xformers_rows.why_not.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, fmha: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(xformers_rows, "attention", lambda: fmha)


def on_a_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(packed_attention, "flash4_agrees", lambda *_: False)


def test_the_mask_has_the_rows_edges_and_no_numbers_of_the_host() -> None:
    edges = torch.tensor([0, 3, 8, 8], dtype=torch.int32)
    with pytest.MonkeyPatch.context() as patch:
        installed(patch, Fmha())
        made = xformers_rows.mask(edges, 2048, 8)
    assert made.q_seqinfo is made.k_seqinfo and made.q_seqinfo.seqstart is edges
    assert (made.q_seqinfo.max_seqlen, made.q_seqinfo.seqstart_py) == (8, [0, 8])


def test_the_mask_is_xformers_own() -> None:
    fmha = pytest.importorskip("xformers.ops.fmha")
    edges = torch.tensor([0, 3, 8, 10], dtype=torch.int32)
    mine, theirs = xformers_rows.mask(edges, 5, 10), fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens([3, 5, 2])
    assert type(mine) is type(theirs)
    for name in ("seqstart", "max_seqlen"):
        assert torch.equal(*(torch.as_tensor(getattr(one.q_seqinfo, name)) for one in (mine, theirs)))
    assert fmha.cutlass.FwOp.OPERATOR is torch.ops.aten._efficient_attention_forward, "as docs/versions.md has it"


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_rows_attend_as_the_usual_way_does(monkeypatch: pytest.MonkeyPatch, shared: int) -> None:
    fmha = Fmha()
    installed(monkeypatch, fmha)
    torch.manual_seed(0)
    parts = [torch.randn(14, heads, 8, requires_grad=True) for heads in (4, shared, shared)]
    edges = torch.tensor([0, 5, 14, 14], dtype=torch.int32)
    found = [attend(*parts, edges, 9, 0.3)[0] for attend in (xformers_rows.xformers_rows, row_attention.attend_rows)]
    gradient = torch.randn_like(found[0])
    mine, theirs = (torch.autograd.grad(out, parts, gradient) for out in found)
    for one, other in zip((found[0], *mine), (found[1], *theirs), strict=True):
        torch.testing.assert_close(one, other)
    assert fmha.heads == {(4, 4, 4)}, "it takes no divisor of the heads"


def test_the_operator_is_one_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Fmha())
    parts = [torch.randn(14, heads, 8, requires_grad=True) for heads in (4, 2, 2)]
    edges = torch.tensor([0, 5, 14], dtype=torch.int32)
    how: dict[str, Any] = {"cu_seq_lens": edges, "longest": 9, "kernel": "xformers"}
    run = torch.compile(
        lambda q, k, v: packed_attention.attend(None, q, k, v, None, **how)[0],
        backend="aot_eager",
        fullgraph=True,
    )
    expected = row_attention.attend_rows(*parts, edges, 9, 8**-0.5)[0]
    q, k, v = (part.transpose(0, 1)[None] for part in parts)
    torch.testing.assert_close(run(q, k, v)[0], expected)


@pytest.mark.parametrize(
    ("capability", "refused", "others", "kernel"),
    [
        ((7, 5), "", True, "xformers"),
        ((7, 0), "", True, "xformers"),
        ((7, 5), "", False, "rows"),
        ((7, 5), "xformers is not installed", True, "rows"),
        ((8, 0), "", True, "rows"),
    ],
)
def test_it_is_taken_before_ampere_where_it_agrees(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], refused: str, others: bool, kernel: str
) -> None:
    on_a_card(monkeypatch, capability)
    monkeypatch.setattr(packed_attention, "why_not", lambda *_: refused)
    assert packed_attention.find_kernel(CARD, torch.float32, 64, others=others) == kernel


def test_where_it_agrees() -> None:
    with pytest.MonkeyPatch.context() as patch:
        installed(patch, Fmha())
        assert xformers_rows.why_not(CPU, torch.float32, 64) == ""


def test_wrong_gradients_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Fmha(off=0.05))
    assert xformers_rows.why_not(CPU, torch.float32, 64) == "xformers gives other numbers on this card than PyTorch"


def test_another_version_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, SimpleNamespace(attn_bias=SimpleNamespace(_SeqLenInfo=Rows, BlockDiagonalCausalMask=Mask)))
    why = xformers_rows.why_not(CPU, torch.float32, 64)
    assert why.startswith("xformers does not run on this card: ") and "has no attribute" in why


def test_a_wheel_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory\nand more")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(xformers_rows, "attention", broken)
    why = xformers_rows.why_not(CPU, torch.float16, 64)
    assert why == "xformers does not load: libcudart.so.12: cannot open shared object file: No such file or directory"
    assert named("rows", T4, why) == f"sdpa by rows; {why}"


def test_a_machine_without_it_is_not_told_of_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert xformers_rows.why_not(CPU, torch.float16, 64) == "xformers is not installed"


@pytest.mark.parametrize(
    ("asked", "said"), [("auto", "sdpa by rows; xformers is not installed"), ("sdpa", "sdpa by rows")]
)
def test_a_run_says_what_attends(monkeypatch: pytest.MonkeyPatch, asked: Any, said: str) -> None:
    on_a_card(monkeypatch, (7, 5))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    base = SimpleNamespace(config=SimpleNamespace(head_dim=64))
    model = SimpleNamespace(get_base_model=lambda: base, parameters=lambda: iter([SimpleNamespace(device=CARD)]))
    recipe = Recipe(model=ModelSection(attn_implementation=asked))
    assert attention_over_rows(model, recipe, Choice("fp16", ""), T4) == ("rows", said)


@pytest.mark.parametrize(("device", "capability"), [(CPU, (7, 5)), (CARD, (8, 0)), (CARD, (9, 0))])
def test_other_machines_do_not_import_it(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, capability: tuple[int, int]
) -> None:
    def imported() -> None:
        raise AssertionError("imported")

    on_a_card(monkeypatch, capability)
    installed(monkeypatch, None)
    monkeypatch.setattr(xformers_rows, "attention", imported)
    monkeypatch.setattr(packed_attention, "why_not", lambda *_: imported())
    assert packed_attention.find_kernel(device, torch.float32, 64) == "rows"


def test_the_reason_is_said_that_stands_below_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it refuses beside a torch of another CUDA."""
    fmha = Fmha()

    def refuses(*_: Any, **__: Any) -> Any:
        raise ValueError(
            "Operator `memory_efficient_attention` does not support inputs:\n     query       : shape=(1, 2)\n"
            "`cutlassF-pt` is not supported because:\n    xFormers wasn't build with CUDA support\n    another"
        )

    fmha.memory_efficient_attention_forward_requires_grad = refuses  # type: ignore[method-assign]
    installed(monkeypatch, fmha)
    why = xformers_rows.why_not(torch.device("cpu"), torch.float32, 8)
    assert why == "xformers does not run on this card: xFormers wasn't build with CUDA support"
