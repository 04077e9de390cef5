"""No two files import each other, at the top or in a function; what only types need does not count."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest


def test_no_files_import_each_other() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("toolkit", "bench", exclude_type_checking_imports=True, cache_dir=None)
    files = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
