"""The bench on a CUDA GPU, with a tiny model: every engine's variants load, agree and are measured.

python -m pytest tests/gpu/test_bench.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import write_gpu_recipe
from toolkit.bench_results import Results

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
VARIANTS = (
    "full,full-fp32,full-adam8,peft-logits,peft,peft-4bit,unsloth,unsloth-nockpt,unsloth-offload,unsloth-nodrop,"
    "unsloth-1x,unsloth-4bit"
)


@pytest.mark.parametrize(("profile", "shape"), [("this", "4x256"), ("t4", "real")])
def test_all_engines_agree_and_are_measured(tmp_path: Path, profile: str, shape: str) -> None:
    recipe = write_gpu_recipe(tmp_path, 60)
    out = tmp_path / "out"
    command = ["bench", "--recipe", str(recipe), "--profile", profile, "--shape", shape, "--variants", VARIANTS]
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *command, "--out", str(out), "--parallel", "6"],
        capture_output=True,
        text=True,
        env={**os.environ, "TOOLKIT_CACHE": str(tmp_path / "cache")},  # a toy's figures must not correct real plans
    )
    results = Results.load(out)
    told = "\n".join(f"{arm.variant}: {arm.status} {arm.stage} {arm.message}" for arm in results.arms.values())
    assert {arm.status for arm in results.arms.values()} == {"measured"}, told
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    for name, arm in results.arms.items():
        assert arm.driver is not None and arm.driver > (results.reserved(name) or 0)
