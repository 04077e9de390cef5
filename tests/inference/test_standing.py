"""What is said of a GGUF before it answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.command import toolkit
from tests.export.verify.planted import plant
from toolkit.data.seen import FILE
from toolkit.errors import ModelError
from toolkit.export.verify.page import save
from toolkit.export_report import Check, VerifyReport
from toolkit.exports import ExportFolder
from toolkit.inference.prompting import prompting_of
from toolkit.inference.standing import standing


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> ExportFolder:
    return ExportFolder(Path(shutil.copytree(exported, tmp_path / "export")))


def said(path: Path) -> str:
    return "; ".join(standing(path, prompting_of(path).template))


def test_what_a_verification_said(folder: ExportFolder) -> None:
    (path,) = folder.ggufs()
    assert said(path).startswith("unverified: not compared with the trained model")
    record = folder.record()
    record.status = "passed"
    record.save(folder.path)
    assert said(path) == ""
    report = VerifyReport(
        "run", "", [], {}, [Check("runtime", path.name, "fail", "far off"), Check("calls", "x", "fail", "")]
    )
    save(report, folder.path)
    assert said(path).startswith("FAILED its verification, so it is not shown to be the trained model: runtime;")
    record.status = "failed"
    record.save(folder.path)
    save(VerifyReport("run", "", [], {}, [Check("calls", "another.gguf", "fail", "")]), folder.path)
    assert said(path) == ""  # the file that failed is another one
    record.save(folder.path)
    (folder.path / "export_report.json").unlink()
    assert said(path).startswith("FAILED") and "--verify-only" in said(path)


def test_a_file_that_is_not_the_one_exported(folder: ExportFolder, tmp_path: Path) -> None:
    (path,) = folder.ggufs()
    with path.open("ab") as file:
        file.write(b"more")
    assert "not the file that" in said(path)
    alone = tmp_path / "alone.gguf"
    shutil.copyfile(path, alone)
    assert said(alone).startswith("unverified: no export.json")


def test_a_template_that_is_not_the_runs(folder: ExportFolder) -> None:
    (path,) = folder.ggufs()
    record = folder.record()
    record.status = "passed"
    record.save(folder.path)
    assert said(path) == ""
    (folder.path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert said(path).startswith("the chat template in the file is not the one that its run was trained with")
    assert f"toolkit export {record.run} --gguf f16 --force" in said(path)


def test_a_file_without_a_template(folder: ExportFolder) -> None:
    (path,) = folder.ggufs()
    plant(folder.path, keys={"tokenizer.chat_template": ""})
    with pytest.raises(ModelError, match=r"no chat template in it.*export it again: toolkit export .* --force"):
        prompting_of(path)


def test_chat_says_it_and_offers_what_was_seen_in_training(
    folder: ExportFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the recipe is gone, or trains on the user's own chats, tools.json says what can be offered."""
    record = folder.record()
    record.recipe = None
    record.save(folder.path)
    words = ["chat", str(folder.path), "--once", "Hi", "--max-new-tokens", "2", "--threads", "1"]
    code, _, err = toolkit(capsys, monkeypatch, *words)
    assert code == 0 and "note: unverified" in err and "no tools on offer" in err and "--tools FILE" in err
    tools = [{"type": "function", "function": {"name": f"tool{number}"}, "chats": 1} for number in range(40)]
    (folder.path / FILE).write_text(json.dumps({"tools": tools, "distinct": 1234}))
    code, _, err = toolkit(capsys, monkeypatch, *words)
    assert code == 0 and "tools: tool0, tool1" in err and "tool15 (the most frequent of 1,234 seen in training" in err
    assert "tool16" not in err
    code, _, err = toolkit(capsys, monkeypatch, *words, "--tools", str(folder.path / FILE))
    assert code == 0 and "no tools" not in err
