from __future__ import annotations

import os
from collections.abc import Generator
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


WHOLE = ("qwen3", "gemma3_text")
"""Families of which every test is made each time."""
LONGEST = ("test_from_a_run_to_files_that_are_shown_to_be_the_model", "test_compiled_equals_eager")
"""The longest tests: of a family's, `WHOLE` has the first of both and the second of the first."""
LONGER = ("gemma3_text", "granite", "lfm2", "llama", "olmo3", "phi3", "qwen3_5_text")
"""Of these the longer tests make both: each kind of layer comes once. Those of the other families, which are like one
of these but for biases, ropes or sizes, are made by `make families` and `make test-slow`."""

OF_A_WHOLE = "test_from_a_run_to_an_export_of_the_text_alone"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = getattr(item, "originalname", "")
        if name == OF_A_WHOLE and "[mistral3]" not in item.name:  # Gemma's vocabulary takes half a minute
            item.add_marker(pytest.mark.endurance if "[gemma3]" in item.name else pytest.mark.slow)
        if item.path.name != "test_every_family.py" or name not in LONGEST:
            continue
        if not any(f"[{family}]" in item.name for family in WHOLE[: LONGEST.index(name) + 1]):
            longer = any(f"[{family}]" in item.name for family in LONGER)
            item.add_marker(pytest.mark.slow if longer else pytest.mark.endurance)


PROMISES = {
    "test_weights_and_modules_are_the_models": "sizes from config.json",
    "test_all_linear_is_pefts": "all-linear",
    "test_a_model_is_planned": "planned",
    "test_packed_equals_padded": "packed = padded",
    "test_recomputing_layers_changes_nothing": "checkpointing on = off",
    "test_compiled_equals_eager": "compiled = eager",
    "test_llama_cpp_computes_what_transformers_computes": "GGUF in llama.cpp = torch",
    "test_llama_cpp_splits_text_as_the_tokenizers_do": "tokens",
    LONGEST[0]: "run to verified export",
    "test_its_own_calls_are_read_back_and_ollamas_parser_is_named": "its own calls, read back",
}
"""What is promised of each family, by the test that holds it: `make families` writes what came out."""
TABLE = "TOOLKIT_FAMILIES_TABLE"
START, STOP = "<!-- made by make families -->", "<!-- to here -->"
_found: dict[tuple[str, str], str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    name, params = getattr(item, "originalname", ""), getattr(getattr(item, "callspec", None), "params", {})
    if name in PROMISES and "tiny" in params and (report.when == "call" or not report.passed):
        told = "yes" if report.passed else "FAILS"
        if report.skipped and isinstance(report.longrepr, tuple):
            told = report.longrepr[2].removeprefix("Skipped: ").partition(":")[0]
        _found.setdefault((params["tiny"], name), told)
    return report


def pytest_sessionfinish() -> None:
    if not (target := os.environ.get(TABLE)):
        return
    path = Path(target)
    before, _, rest = path.read_text().partition(START)
    cells = [line.strip("| ").split(" | ") for line in rest.partition(STOP)[0].splitlines() if line.startswith("| `")]
    kept = {(row[0].strip("`"), name): told for row in cells for name, told in zip(PROMISES, row[1:], strict=False)}
    kept |= _found  # what was not tried this time stays as it was
    rows = [f"| | {' | '.join(PROMISES.values())} |", "|---" * (len(PROMISES) + 1) + "|"]
    for kind in sorted(FAMILIES):
        rows.append(f"| `{kind}` | {' | '.join(kept.get((kind, name), 'not tried') for name in PROMISES)} |")
    path.write_text(before + START + "\n\n" + "\n".join(rows) + "\n\n" + STOP + rest.partition(STOP)[2])
