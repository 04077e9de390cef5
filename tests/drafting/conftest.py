"""A cache of its own, and no GPU whatever the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.drafting import draft as drafting


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(drafting, "seen_gpus", list)
