from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_recipe


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    """A recipe over 40 short chats: 8 chats an update, 4 + 1 updates an epoch."""
    return write_recipe(
        tmp_path,
        tiny_model,
        40,
        lora={"lora_dropout": 0.0},
        train={
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "gradient_checkpointing": False,
        },
        eval={"eval_steps": 4, "early_stopping_patience": 0},
    )
