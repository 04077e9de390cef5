"""docs/recipe.md is what the schema says."""

from __future__ import annotations

from pathlib import Path

from toolkit.recipe.reference import page
from toolkit.recipe.schema import Recipe
from toolkit.recipe.validate import sections

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_the_page_is_the_schema_s() -> None:
    assert PAGE.read_text() == page()


def test_every_key_is_there_and_says_what_it_takes() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    keys = sum(len(section.model_fields) for _, _, section in sections()) - 2  # the two lists of sources
    assert len(rows) == keys and set(Recipe.model_fields) <= {heading.strip("[]") for heading, _, _ in sections()}
    assert all(row.split(" | ")[2].strip() for row in rows)
