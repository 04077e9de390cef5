"""A recipe over files, and jobs of it for each platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_chats


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mine.toml over two files of one name and a folder."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    for name in ("chats.jsonl", "more/chats.jsonl", "folder/one.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_chats(tmp_path / name, 30, seed=len(name))
    sources = ("chats.jsonl", "more/chats.jsonl", "folder", "builtin:tools")
    (tmp_path / "mine.toml").write_text(
        "".join(f'[[data.sources]]\nsource = "{source}"\n' for source in sources)
        + "[train]\nbf16 = false\nfp16 = true\nnum_train_epochs = 1\n"
    )
    return tmp_path
