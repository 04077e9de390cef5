"""What constraints files pin fits what the project asks for, on every Python that each is for."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.pins.constraints import EVERY, FILES, ROOT, Constraints, environment, project, wanted
from tests.pins.resolve import SHOWN

CASES = [pytest.param(one, python, id=f"{one.file}-{python}") for one in FILES for python in one.pythons]
GPU, COLAB = FILES[1:]


def named(requirements: list[Requirement], python: str) -> list[Requirement]:
    return [one for one in requirements if one.marker is None or one.marker.evaluate(environment(python))]


@pytest.mark.parametrize(("constraints", "python"), CASES)
def test_pins_fit_what_is_asked_for(constraints: Constraints, python: str) -> None:
    has = constraints.pins(python) | constraints.image.get(python, {})
    told = {canonicalize_name(one.name): one.specifier for one in named(wanted(constraints.extras), python)}
    refused = {
        name: f"{has[name]} is not {specifier}"
        for name, specifier in told.items()
        if name in has and not specifier.contains(has[name], prereleases=True)
    }
    assert refused == {}
    assert {"transformers", "trl", "peft", "torch"} <= has.keys() & told.keys()


@pytest.mark.parametrize(("constraints", "python"), CASES)
def test_the_page_of_versions_has_these_pins(constraints: Constraints, python: str) -> None:
    """docs/versions.md was made after the last change to them."""
    lines = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    (heads,) = [row for row in cells if row[1].startswith("constraints")]
    column = heads.index(f"{constraints.file.removesuffix('.txt')}, {python}")
    page = {row[0]: row[column] for row in cells if len(row) == len(heads)}
    pins = constraints.pins(python) | constraints.image.get(python, {})
    assert {name: page[name] for name in SHOWN if name in pins} == {name: pins[name] for name in SHOWN if name in pins}


def test_every_python_that_the_project_takes_has_a_file() -> None:
    bounds = SpecifierSet(str(project()["requires-python"]))
    assert all(bounds.contains(python) for python in EVERY) and not bounds.contains("3.10")
    assert [one.pythons for one in (FILES[0], GPU)] == [EVERY, EVERY]


def test_a_markers_versions_meet_on_some_python() -> None:
    """A pin whose marker holds on no Python, or two that hold on one, would be found by nobody until then."""
    for constraints in FILES:
        texts = [
            line for line in constraints.path.read_text(encoding="utf-8").splitlines() if ";" in line and line[0] != "#"
        ]
        for text in texts:
            marker = Requirement(text).marker
            assert marker and any(marker.evaluate(environment(python)) for python in constraints.pythons), text


def test_colab_has_the_gpu_pins_but_for_what_its_image_brings() -> None:
    ours, other = COLAB.pins("3.13"), GPU.pins("3.13")
    assert ours.items() <= other.items()
    left_out = other.keys() - ours.keys()
    assert {"torch", "triton", "numpy"} <= left_out, "pip would replace the image's"
    assert not re.search(r"^torch", COLAB.path.read_text(encoding="utf-8").replace("torchao", ""), re.MULTILINE)


def test_the_newest_unsloth_that_is_allowed_is_the_one_that_is_pinned() -> None:
    """Two bounds that drift apart: the extra would let pip take a version that nothing ran with."""
    (unsloth,) = (one for one in wanted(("gpu",)) if one.name == "unsloth")
    (most,) = (one.version for one in unsloth.specifier if one.operator == "<=")
    assert GPU.pins("3.12")["unsloth"] == COLAB.pins("3.13")["unsloth-zoo"] == most
