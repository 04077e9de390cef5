"""Engines on a CUDA GPU. Each run is a process of its own, because Unsloth patches the whole process.

python -m pytest tests/gpu
"""

from __future__ import annotations

import json
import subprocess
import sys
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
# bf16 products in another order: measured differences of the first loss are below 0.01 at a loss near 6
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    return write_gpu_recipe(folder, 60, train={"learning_rate": 1e-3, "num_train_epochs": 1}, eval={"eval_steps": 3})


def train(recipe: Path, out: Path, *overrides: str) -> tuple[list[float], dict[str, Any]]:
    """(losses, environment) of a run in a process of its own."""
    settings = [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "run", str(recipe), "--out", str(out), *settings],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    losses = [row["loss"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    return losses, json.loads((out / "environment.json").read_text())


@pytest.mark.parametrize("bits", ["16", "4"])
def test_engines_agree_on_the_same_tokens(recipe: Path, tmp_path: Path, bits: str) -> None:
    four = f"model.load_in_4bit={'true' if bits == '4' else 'false'}"
    plain, plain_environment = train(recipe, tmp_path / "peft", "train.engine=peft", four)
    fused, fused_environment = train(recipe, tmp_path / "unsloth", "train.engine=unsloth", four)
    assert plain_environment["data"]["train_table_key"] == fused_environment["data"]["train_table_key"]
    assert fused_environment["engine"]["patched"] == {"qkv": 2, "o": 2, "mlp": 2}
    assert fused_environment["engine"]["trainable"] == plain_environment["engine"]["trainable"]
    assert fused[0] == pytest.approx(plain[0], abs=TOLERANCE)
    assert fused[-1] == pytest.approx(plain[-1], abs=5 * TOLERANCE)
    assert fused[-1] < fused[0]


def test_chats_are_decoded_before_and_after_training(recipe: Path, tmp_path: Path) -> None:
    """Through Unsloth's patched forward too; `before` proves by itself that the adapter is off."""
    settings = ("train.engine=unsloth", "eval.generate=4", "eval.max_new_tokens=24", "eval.generate_batch_size=3")
    train(recipe, tmp_path / "run", *settings)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = (
        list(read_jsonl(tmp_path / "run" / "evaluation" / f"{when}.jsonl")) for when in ("before", "after")
    )
    assert len(before) == len(after) >= 4
    assert summary["calls_before"] is not None and summary["calls_after"] is not None


def test_half_precision_as_on_a_t4(recipe: Path, tmp_path: Path) -> None:
    half = ("train.fp16=true", "train.bf16=false", "train.engine=unsloth")
    losses, environment = train(recipe, tmp_path / "fp16", *half)
    assert environment["engine"]["precision"]["value"] == "fp16"
    assert losses[-1] < losses[0]
    summary = json.loads((tmp_path / "fp16" / "summary.json").read_text())
    assert summary["skipped_updates"] <= 2


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_four_bit_half_precision(recipe: Path, tmp_path: Path, engine: str) -> None:
    """TRL casts QLoRA adapters to bf16, which loss scaling can't take; the trainer casts them back."""
    settings = ("train.fp16=true", "train.bf16=false", "model.load_in_4bit=true", f"train.engine={engine}")
    losses, _ = train(recipe, tmp_path / engine, *settings)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_an_update_is_the_same_however_it_is_cut(recipe: Path, tmp_path: Path, engine: str) -> None:
    cut = "train.per_device_train_batch_size={}", "train.gradient_accumulation_steps={}"
    runs = [
        train(
            recipe,
            tmp_path / f"{engine}-{size}",
            f"train.engine={engine}",
            "lora.lora_dropout=0.0",
            cut[0].format(size),
            cut[1].format(16 // size),
        )[0]
        for size in (2, 16)
    ]
    assert runs[0] == pytest.approx(runs[1], abs=TOLERANCE)
