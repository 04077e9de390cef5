from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.verify.planted import make_export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/export of a tiny Llama, with an F16 GGUF."""
    pytest.importorskip("xllamacpp")
    return make_export(tmp_path_factory.mktemp("exported"), "llama")
