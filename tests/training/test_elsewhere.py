"""A run that began in one folder is gone on with, and verified, from another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny import write_chats
from toolkit.errors import RunError
from toolkit.recipe import load
from toolkit.records import read_object
from toolkit.terminal import new_console
from toolkit.training.run import run
from toolkit.training.verify.run import verify_run


@pytest.mark.slow
def test_resumed_and_verified_from_another_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_chats(tmp_path / "held-out.jsonl", 4, seed=2)
    text = recipe.read_text().replace(str(tmp_path / "chats.jsonl"), "chats.jsonl")
    recipe.write_text(f'{text}\n[[eval.sources]]\nsource = "held-out.jsonl"\n'.replace("holdout = 4", ""))
    monkeypatch.chdir(tmp_path)
    short = ["train.max_steps=2", "train.save_steps=1"]
    folder = run(load(Path("tiny.toml"), short), Path("run"))
    began = read_object(folder.environment)["data"]
    assert began["places"] == {name: str(tmp_path / name) for name in ("chats.jsonl", "held-out.jsonl")}

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_chats(Path("chats.jsonl"), 40, seed=7)
    for words in ((tmp_path / "run" / "recipe.toml", []), (tmp_path / "tiny.toml", short)):
        (tmp_path / "run" / "summary.json").unlink()
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-2")
        resumed = run(load(*words), resume=tmp_path / "run")
        now = read_object(resumed.environment)["data"]
        assert {name: now[name] for name in ("files", "places")} == {name: began[name] for name in ("files", "places")}
        assert 'source = "chats.jsonl"' in resumed.recipe.read_text()
    assert verify_run(tmp_path / "run", new_console(quiet=True), 1)[0] == "equal"

    # chats of an evaluation that are others would choose another adapter
    (tmp_path / "run" / "summary.json").unlink()
    write_chats(tmp_path / "held-out.jsonl", 4, seed=3)
    with pytest.raises(RunError, match="the held-out chats are others than when this run began"):
        run(load(tmp_path / "tiny.toml", short), resume=tmp_path / "run")
