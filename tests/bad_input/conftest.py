"""A place to call the command line in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.common import BASE, Call
from tests.command import toolkit
from tests.tiny import write_chats


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a recipe, a model and 40 chats, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    write_chats(tmp_path / "chats.jsonl", 40)
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


@pytest.fixture
def call(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """(exit code, stderr) of a command line in this process; asserts that it shows no traceback."""

    def go(*words: str) -> tuple[int, str]:
        code, out, err = toolkit(capsys, monkeypatch, *words)
        assert "Traceback" not in out + err, err
        return code, err

    return go
