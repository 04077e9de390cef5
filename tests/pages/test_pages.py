"""Every page: well formed, one file, nothing fetched or run, whatever is written in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.samples import KINDS, write_pages
from tests.pages.tree import EVIL, Tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    pages: dict[str, Path] = write_pages(tmp_path_factory.mktemp("pages"), EVIL)
    return {name: Tree(path.read_text()) for name, path in pages.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_page_holds_all_it_shows(trees: dict[str, Tree], name: str) -> None:
    tree = trees[name]
    assert not tree.wrong and not tree.open
    assert not any(set(values) & {"src", "srcset", "onerror", "action"} for _, values in tree.tags)
    assert all(values["href"].startswith("#") for tag, values in tree.tags if tag == "a")  # type: ignore[union-attr]
    (policy,) = [values["content"] for _, values in tree.tags if values.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    scripts = [tag for tag, _ in tree.tags].count("script")
    assert scripts == (name in ("run", "long words", "compared")) and ("script-src" in policy) == bool(scripts)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("run", "compared")])
def test_text_stays_text(trees: dict[str, Tree], name: str) -> None:
    assert EVIL in trees[name].text
    assert "img" not in {tag for tag, _ in trees[name].tags}
