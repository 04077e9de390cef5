"""Compiled code is found again only where the functions that it was made of are the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.engines import compiled_layers as compiled


def test_another_text_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled.code_folder()
    assert compiled.code_folder() == before
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + b"#" * (path.name == "fused_lora.py"))
    assert compiled.code_folder() != before
    assert compiled.code_folder().parent == before.parent


def test_a_folder_of_the_user_s_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")
    compiled.keep_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compiled.keep_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(compiled.code_folder())
    monkeypatch.undo()
