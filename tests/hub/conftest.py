from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.server import TOKEN, Hub, running
from toolkit.data.commits import forget


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with running() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """An empty hub that this process takes for the real one, with a token that may write for `me`."""
    import datasets
    from huggingface_hub import constants

    forget()
    served.repos.clear()
    served.stored.clear()
    served.faults.clear()
    served.asked.clear()
    for module, names in {constants: ("ENDPOINT",), datasets.config: ("HF_ENDPOINT",)}.items():
        for name in names:
            monkeypatch.setattr(module, name, served.endpoint)
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the older way, which needs no other server
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return served
