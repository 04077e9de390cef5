"""A small run through all stages, its reference, and forks to run it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endurance.forks import Forks
from tests.endurance.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("endurance")
    forks = Forks(folder, folder / "cache")
    try:
        yield World.make(folder, tiny_model, forks)
    finally:
        forks.close()
