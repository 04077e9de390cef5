"""What only looks at data starts soon: nothing that computes is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.toys import QWEN_LIKE, save_tokenizer, weather_row, write_jsonl

HEAVY = ("torch", "trl", "peft", "accelerate", "datasets", "pyarrow", "sympy", "pandas", "matplotlib", "unsloth")
MOST_MODULES = 1000  # with PyTorch it is 2,900
CODE = """
import json, sys
from toolkit.commands.main import main

try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted(sys.modules)))
"""
AFTERWARDS = """
from transformers.utils import is_torch_available
import torch
assert is_torch_available() and torch.tensor([1.0]).item() == 1.0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 500}))
    write_jsonl(tmp_path / "x.jsonl", [weather_row(str(number)) for number in range(20)])
    path = tmp_path / "x.toml"
    lines = ["[model]", 'name = "./model"', "[[data.sources]]", 'source = "x.jsonl"', "[eval]", "holdout = 2"]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("verb", [["check"], ["preview", "-n", "1"], ["build"]])
def test_the_data_verbs_import_no_torch(recipe: Path, tmp_path: Path, verb: list[str]) -> None:
    """And whoever needs it in the same process gets it afterwards."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "TOOLKIT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(root)}
    words = ["toolkit", "data", verb[0], str(recipe.name), *verb[1:]]
    code = f"import sys; sys.argv = {words!r}\n{CODE}{AFTERWARDS if verb == ['check'] else ''}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PyTorch was not found" not in done.stderr
    names = json.loads(done.stdout.splitlines()[-1])
    assert "transformers" not in names, "what was imported without PyTorch is not left behind"
    assert [name for name in HEAVY if name in names] == []
    assert len(names) < MOST_MODULES
