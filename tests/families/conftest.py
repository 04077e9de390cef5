from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from toolkit.models.families import FAMILIES, Family
from toolkit.models.shape import ModelShape


@dataclass(frozen=True)
class Tiny:
    """A tiny random model of a family under the tests' own tokenizer, and an adapter on it."""

    family: Family
    folder: Path

    @cached_property
    def shape(self) -> ModelShape:
        from toolkit.models.families import load_shape
        from toolkit.recipe.schema import ModelSection

        return load_shape(ModelSection(name=str(self.folder)))

    @cached_property
    def adapter(self) -> Path:
        from tests.export.shapes import adapter

        return adapter(self.folder.parent / "adapter", self.folder)

    def adapted(self) -> Any:
        """The model in float32 with a fresh random adapter on all linear layers."""
        from tests.kernels.test_head_loss import adapted

        return adapted(self.folder)


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Of each family in turn."""
    from tests.export.shapes import base_model
    from tests.tiny import split_as

    family = FAMILIES[request.param]
    folder = base_model(tmp_path_factory.mktemp(family.model_type) / "model", family.model_type)
    if family.pre_tokenizers:
        split_as(folder, family.pre_tokenizers[0])
    return Tiny(family, folder)


@pytest.fixture
def exported(tiny: Tiny) -> Tiny:
    """Of each family that is exported."""
    if tiny.family.class_name is None:
        pytest.skip("planned and trained only")
    return tiny


WHOLE = ("qwen3", "gemma3_text")
"""Families of which every test is made each time; of the others the longest ones belong to the longer tests."""
LONGEST = ("test_from_a_run_to_files_that_are_shown_to_be_the_model", "test_compiled_equals_eager")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = getattr(item, "originalname", "")
        if name in LONGEST and not any(f"[{family}" in item.name for family in WHOLE[: LONGEST.index(name) + 1]):
            item.add_marker(pytest.mark.slow)
