"""How the files lie: no two import each other, and an installed copy has them all."""

from __future__ import annotations

import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_wheel_has_every_file() -> None:
    """What is no code goes into a wheel by the patterns of its package in pyproject.toml."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "namespaces" not in setuptools["packages"]["find"], "a folder without __init__.py is a package too"
    found = [path for top in ("toolkit", "bench") for path in (ROOT / top).rglob("*") if path.is_file()]
    files = [path for path in found if path.suffix not in (".py", ".pyc")]
    assert len(files) > 30
    left_out = [path for path in files if not any(path.match(pattern) for pattern in setuptools["package-data"]["*"])]
    assert not left_out


def test_no_files_import_each_other() -> None:
    """At the top or in a function; what only types need does not count."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("toolkit", "bench", exclude_type_checking_imports=True, cache_dir=None)
    files = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
