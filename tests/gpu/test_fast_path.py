"""The fast path on a CUDA GPU: packed rows, compiled layers and Unsloth's own way to take packed rows.

Each arm is a process of its own, because Unsloth patches the whole process.

python -m pytest tests/gpu/test_fast_path.py
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_gpu_recipe
from toolkit.records import read_jsonl

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
# 16-bit products in another order: measured differences of a first loss near 6 are below 0.01
FIRST, NORM, LATER = 0.03, 0.05, 0.03
UPDATES = 50
PACKED = "train.micro_batch=auto"
ARMS = {
    "packed": ("train.engine=peft", PACKED),
    "packed in pieces": ("train.engine=peft", "train.micro_batch=600"),
    "some layers": ("train.engine=peft", PACKED, "train.gradient_checkpointing=auto"),
    "compiled": ("train.engine=compiled", PACKED, "train.gradient_checkpointing=false"),
    "compiled, recomputed": ("train.engine=compiled", PACKED, "train.gradient_checkpointing=true"),
    "compiled, static": ("train.engine=compiled", PACKED, "train.compile=static", "train.gradient_checkpointing=false"),
    "compiled, not recorded": (
        *("train.engine=compiled", PACKED, "train.cuda_graphs=false"),
        "train.gradient_checkpointing=false",
    ),
    "compiled, fused": ("train.engine=compiled", PACKED, "train.products=fused", "train.gradient_checkpointing=false"),
    "compiled, fused, in pieces": (
        *("train.engine=compiled", "train.micro_batch=600", "train.products=fused"),
        "train.gradient_checkpointing=false",
    ),
    "unsloth": ("train.engine=unsloth", PACKED),
    "unsloth, some layers": ("train.engine=unsloth", PACKED, "train.gradient_checkpointing=auto"),
}
STEPS = """
import os
import sys
import torch
torch.backends.cuda.enable_flash_sdp("NO_FLASH" not in os.environ)
from toolkit.engines import ENGINES
ENGINES[sys.argv[2]].prepare()
from toolkit.training import session
from toolkit.commands.main import app
kept = {}
real = session.Trainer
def build(*args, **kwargs):
    made = real(*args, **kwargs)
    step = made.training_step
    def first(*given, **named):
        loss = step(*given, **named)
        if not kept:
            for name, parameter in made.model.named_parameters():
                if parameter.grad is not None:
                    kept[name] = parameter.grad.detach().float().cpu().clone()
            torch.save(kept, path)
        return loss
    made.training_step = first
    return made
session.Trainer = build
path = sys.argv[1]
sys.argv = ["toolkit", *sys.argv[3:]]
app()
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    return write_gpu_recipe(
        folder,
        240,
        lora={"lora_dropout": 0.0},
        train={"learning_rate": 1e-3, "max_steps": UPDATES},
        eval={"holdout": 8, "eval_steps": UPDATES},
    )


def train(
    recipe: Path, out: Path, *overrides: str, **env: str
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """(updates, environment, gradients of the first micro-batch's step) of a run in a process of its own."""
    settings = [part for override in overrides for part in ("--set", override)]
    engine = next(part.partition("=")[2] for part in overrides if part.startswith("train.engine="))
    kept = out.with_suffix(".gradients")
    words = [sys.executable, "-c", STEPS, str(kept), engine, "run", str(recipe), "--out", str(out), *settings]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=Path(__file__).parents[2], env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    updates = [row for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    return updates, json.loads((out / "environment.json").read_text()), torch.load(kept)


Run = tuple[list[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def padded(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Updates and gradients of an engine with one padded micro-batch an update, whose gradient is the update's.

    Unsloth draws other first values of the adapter than PEFT, so it is compared with itself.
    """

    @functools.cache
    def run(engine: str) -> Run:
        one = ("train.per_device_train_batch_size=16", "train.gradient_accumulation_steps=1")
        updates, _, gradients = train(recipe, tmp_path_factory.mktemp(engine) / "run", f"train.engine={engine}", *one)
        return updates, gradients

    return run


@pytest.mark.parametrize("arm", ARMS)
def test_it_is_the_same_training(recipe: Path, tmp_path: Path, padded: Callable[[str], Run], arm: str) -> None:
    updates, environment, gradients = train(recipe, tmp_path / "run", *ARMS[arm])
    plain, expected = padded("unsloth" if arm.startswith("unsloth") else "peft")
    assert len(updates) == len(plain) == UPDATES
    assert [row["real_tokens"] for row in updates] == [row["real_tokens"] for row in plain]
    assert updates[0]["loss"] == pytest.approx(plain[0]["loss"], abs=FIRST)
    assert updates[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=NORM)
    for mine, theirs in zip(updates, plain, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=LATER)
    assert updates[-1]["loss"] < updates[0]["loss"] - 0.5
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        mine = gradients[name]
        if gradient.abs().max() == 0:  # A's, while B is zero
            assert mine.abs().max() == 0
            continue
        assert torch.nn.functional.cosine_similarity(mine.flatten(), gradient.flatten(), dim=0) > 0.99
        assert mine.norm() == pytest.approx(float(gradient.norm()), rel=NORM)
    if arm.startswith("unsloth"):
        assert environment["engine"]["patched"] == {"qkv": 2, "o": 2, "mlp": 2}


@pytest.mark.parametrize("engine", ["peft", "compiled", "unsloth"])
def test_four_bit_weights_train_packed(recipe: Path, tmp_path: Path, engine: str) -> None:
    overrides = (f"train.engine={engine}", PACKED, "model.load_in_4bit=true", "train.max_steps=4", "eval.eval_steps=4")
    updates, environment, _ = train(recipe, tmp_path / "run", *overrides)
    assert environment["engine"]["weights"].startswith("nf4")
    assert all(row["grad_norm"] > 0 for row in updates)
    assert updates[-1]["loss"] < updates[0]["loss"]


def test_float16_without_flash_attention(recipe: Path, tmp_path: Path) -> None:
    """As on a T4: rows go through the memory-efficient kernels, and one by one where these are off too."""
    fp16 = ("train.fp16=true", "train.bf16=false", "train.max_steps=8", "eval.eval_steps=8", PACKED)
    packed, _, _ = train(recipe, tmp_path / "peft", "train.engine=peft", *fp16)
    for engine in ("peft", "compiled"):
        without, _, _ = train(recipe, tmp_path / f"{engine}-rows", f"train.engine={engine}", *fp16, NO_FLASH="1")
        for mine, theirs in zip(without, packed, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=LATER)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_rows_attend_as_if_alone(dtype: Any, size: int) -> None:
    from toolkit.kernels.row_attention import attend_rows, kernel_agrees

    card = torch.device("cuda", torch.cuda.current_device())
    for window in (0, 64):
        assert kernel_agrees(card, dtype, size, windowed=window > 0)

        def attend(*given: Any, window: int = window) -> Any:
            return attend_rows(*given, window)

        check_rows(attend, dtype, size, 1e-3 if dtype == torch.float32 else 0.01, window)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_window_of_pytorchs_flash_attention_is_ours(size: int) -> None:
    """Also where FlashAttention 4 attends in the layers without one."""
    from toolkit.kernels.packed_attention import attend

    def windowed(q: Any, k: Any, v: Any, edges: Any, longest: int, scale: float) -> tuple[Any, None]:
        parts = [part.transpose(0, 1)[None] for part in (q, k, v)]
        how: dict[str, Any] = {"longest": longest, "kernel": "flash4", "sliding_window": 64, "scaling": scale}
        return attend(None, parts[0], parts[1], parts[2], None, cu_seq_lens=edges, **how)[0][0], None

    check_rows(windowed, torch.bfloat16, size, 0.01, 64)


@pytest.mark.parametrize("size", [64, 128])
def test_flash4_rows_attend_as_if_alone(size: int) -> None:
    pytest.importorskip("flash_attn.cute")
    from toolkit.hardware import FLASH4
    from toolkit.kernels.flash4 import flash4_agrees, flash4_rows

    if torch.cuda.get_device_capability()[0] not in FLASH4:
        pytest.skip("not a card for FlashAttention 4")
    assert flash4_agrees(torch.device("cuda", torch.cuda.current_device()), torch.bfloat16, size)
    check_rows(flash4_rows, torch.bfloat16, size, 0.01)


def check_rows(attend: Callable[..., Any], dtype: Any, size: int, within: float, window: int = 0) -> None:
    """Attention over packed rows, and its gradients, against each row alone."""
    from toolkit.kernels.row_attention import _usual, _usual_backward

    sizes = [300, 1, 77, 700]
    edges = torch.tensor([0, 300, 301, 378, 1078, 1078, 1078], dtype=torch.int32, device="cuda")
    q, k, v = (torch.randn(sum(sizes), heads, size, device="cuda").to(dtype).requires_grad_() for heads in (8, 4, 4))
    out, _ = attend(q, k, v, edges, 2048, size**-0.5)
    gradient = torch.randn_like(out)
    found = (out, *torch.autograd.grad(out, (q, k, v), gradient))
    with torch.no_grad():
        usual = _usual(q, k, v, edges, size**-0.5, window)
        expected = (usual, *_usual_backward(gradient, q, k, v, edges, size**-0.5, window))
    for mine, theirs in zip(found, expected, strict=True):
        difference = (mine.float() - theirs.float()).norm() / theirs.float().norm()
        assert float(difference) < within


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [50, 4096, 151_936])
def test_cross_entropy_on_the_card_is_the_formula(dtype: Any, columns: int) -> None:
    from toolkit.kernels.head_loss import cross_entropy_, kernel_agrees

    assert kernel_agrees(torch.device("cuda", torch.cuda.current_device()), dtype)
    logits, labels = torch.randn(70, columns) * 4, torch.randint(0, columns, (70,))
    labels[0], labels[1] = 0, columns - 1
    mine, formula = logits.to("cuda", dtype), logits.to(dtype)
    kept = mine.clone()
    loss = cross_entropy_(mine, labels.cuda(), gradient=False)
    assert torch.equal(mine, kept)
    torch.testing.assert_close(cross_entropy_(mine, labels.cuda(), gradient=True), loss)
    torch.testing.assert_close(loss.cpu(), cross_entropy_(formula, labels, gradient=True), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(mine.cpu().float(), formula.float(), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("columns", [(2048,), (2048, 1024, 1024), (6144, 6144), (48,)])
def test_rows_are_rounded_on_the_card_as_by_the_formula(columns: tuple[int, ...]) -> None:
    from toolkit.kernels.float8_rounding import round_rows

    parts = [torch.randn(300, size + 16, device="cuda").bfloat16()[:, :size] for size in columns]
    parts[0][7] = 0
    eight, scale = round_rows(parts)
    formula, expected = round_rows([part.cpu() for part in parts])
    torch.testing.assert_close(scale.cpu(), expected)
    # a quotient between two numbers of float8 may go to either
    different = (eight.cpu().float() != formula.float()).float().mean()
    assert float(different) < 0.005
    torch.testing.assert_close(eight.cpu().float() * expected, formula.float() * expected, rtol=0.13, atol=1e-3)


@pytest.mark.parametrize("products", ["separate", "fused", "float8"])
def test_dropout_trains_compiled(recipe: Path, tmp_path: Path, products: str) -> None:
    """With the dropout that runs have, its hash compiled for the card."""
    compiled = ("train.engine=compiled", PACKED, f"train.products={products}", "lora.lora_dropout=0.05")
    updates, _, _ = train(recipe, tmp_path / "run", *compiled, "train.max_steps=12", "eval.eval_steps=12")
    assert all(row["grad_norm"] > 0 for row in updates)
    assert updates[-1]["loss"] < updates[0]["loss"]


def test_float8_products_train_alike(recipe: Path, tmp_path: Path, padded: Callable[[str], Run]) -> None:
    """Losses within a tenth, over all updates, of those in bfloat16; the quality of a whole run is docs/benchmarks'."""
    updates, _, _ = train(recipe, tmp_path / "run", "train.engine=compiled", PACKED, "train.products=float8")
    plain, _ = padded("peft")
    for mine, theirs in zip(updates, plain, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.1)
    assert updates[-1]["loss"] < updates[0]["loss"] - 0.5


@pytest.mark.parametrize("products", ["separate", "fused", "float8"])
def test_recordings_are_kept_over_epochs(recipe: Path, tmp_path: Path, products: str) -> None:
    """Each epoch ends in an update of fewer chats, with another number of row edges."""
    settings = (
        *("train.engine=compiled", PACKED, f"train.products={products}", "train.gradient_checkpointing=false"),
        *("train.max_steps=-1", "train.num_train_epochs=3", "eval.eval_steps=100"),
        *("train.per_device_train_batch_size=64", "train.gradient_accumulation_steps=1"),
    )
    words = [sys.executable, "-m", "toolkit", "run", str(recipe), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*words, *(part for one in settings for part in ("--set", one))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (told,) = re.findall(r"^graphs     ([\d,]+) of ([\d,]+) micro-batches replayed$", done.stdout, re.MULTILINE)
    replayed, all_of_them = (int(number.replace(",", "")) for number in told)
    updates = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert len(updates) == all_of_them == 12, "232 chats, 64 an update, three times"
    assert replayed >= 10, "all but the first, which compiles"
    assert updates[-1]["loss"] < updates[0]["loss"]
