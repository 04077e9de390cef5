from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import short_recipe


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    return short_recipe(tmp_path, tiny_model)
