"""A card that passes for a T4: float16, no bfloat16, no flash attention; the same losses as the card gives as itself.

python -m pytest tests/gpu/test_turing.py
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
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
ROOT = Path(__file__).parents[2]
NEAR = 0.03  # float16 products in another order, of losses near 6


def packed_by() -> str:
    """What is to attend over packed chats: xformers where it is installed and its library loads."""
    if importlib.util.find_spec("xformers") is None:
        return "sdpa by rows; xformers is not installed"
    from xformers import _cpp_lib

    if _cpp_lib._cpp_library_load_exception is None:
        return "xformers' block-diagonal mask"
    return "sdpa by rows; xformers does not run on this card: xFormers wasn't build with CUDA support"


ARMS = {
    "padded": ("train.engine=peft", "train.micro_batch=fixed"),
    "packed": ("train.engine=peft", "train.micro_batch=auto"),
    "compiled": ("train.engine=compiled", "train.micro_batch=auto", "train.gradient_checkpointing=false"),
    "unsloth": ("train.engine=unsloth", "train.micro_batch=auto"),
    "unsloth, padded": ("train.engine=unsloth", "train.micro_batch=fixed"),
    "compiled, recomputed": ("train.engine=compiled", "train.micro_batch=auto", "train.gradient_checkpointing=true"),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpu_recipe(
        tmp_path_factory.mktemp("turing"),
        120,
        lora={"lora_dropout": 0.0},
        train={"learning_rate": 1e-3, "max_steps": 12, "bf16": False, "fp16": True},
        eval={"holdout": 8, "eval_steps": 12},
    )


def trained(module: str, recipe: Path, out: Path, arm: str) -> tuple[list[float], dict[str, Any], str, str]:
    """(losses, environment, all code that Inductor wrote, what was said) of a run in a process of its own."""
    code = out.with_name(f"{out.name}-code")
    settings = [part for override in ARMS[arm] for part in ("--set", override)]
    words = [sys.executable, "-m", module, "run", str(recipe), "--out", str(out), *settings]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(code), "UNSLOTH_COMPILE_LOCATION": f"{code}-unsloth"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    losses = [row["loss"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    written = "\n".join(path.read_text() for path in code.rglob("*.py"))
    return losses, json.loads((out / "environment.json").read_text()), written, done.stdout + done.stderr


@pytest.mark.parametrize("arm", ARMS)
def test_it_trains_as_it_would_on_a_t4(recipe: Path, tmp_path: Path, arm: str) -> None:
    if arm.startswith("unsloth") and importlib.util.find_spec("unsloth") is None:
        pytest.skip("Unsloth is not installed")
    losses, environment, code, said = trained("tests.gpu.turing", recipe, tmp_path / "believed", arm)
    own, _, _, _ = trained("toolkit", recipe, tmp_path / "own", arm)
    assert environment["hardware"]["gpu"]["capability"] == [7, 5]
    assert environment["engine"]["precision"]["value"] == "fp16"
    by = {"unsloth": "unsloth's dispatcher", "padded": "sdpa"}.get(arm.partition(",")[0]) or packed_by()
    assert environment["engine"]["attention"] == by, "no flash attention, and xformers where it loads"
    assert all(map(math.isfinite, losses)) and len(losses) == len(own) == 12
    assert max(abs(one - other) for one, other in zip(losses, own, strict=True)) < NEAR
    assert bool(code) == arm.startswith("compiled") or arm.startswith("unsloth")
    assert not re.search(r"bfloat16|bf16", code), "Inductor takes no graph with it before Ampere"
    assert "bfloat16 compilation" not in said, "Inductor left a graph out"
    assert "tl.dot" not in code, "which a Turing card computes without tensor cores"
    assert "flex_attention" not in code
