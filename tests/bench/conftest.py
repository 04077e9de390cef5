from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_chats


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    """A recipe of the tiny model in float32: 2 x 2 chats an update."""
    write_chats(tmp_path / "chats.jsonl", 60)
    path = tmp_path / "tiny.toml"
    path.write_text(f"""
[model]
name = "{tiny_model}"
dtype = "float32"

[lora]
r = 4

[[data.sources]]
source = "{tmp_path / "chats.jsonl"}"

[data]
call_format = "json"

[train]
engine = "peft"
bf16 = false
learning_rate = 5e-3
per_device_train_batch_size = 2
gradient_accumulation_steps = 2
max_length = 512

[eval]
holdout = 4
""")
    return path
