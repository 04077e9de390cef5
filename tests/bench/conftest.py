from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_recipe


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    """A recipe of the tiny model in float32: 2 x 2 chats an update."""
    return write_recipe(
        tmp_path, tiny_model, 60, train={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    )
