"""Qwen3 under its real tokenizer and template, from a run to files whose gate passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.command import toolkit
from tests.export.ollama_rules import Answer, answer, prompts_with_the_gguf
from toolkit.export.destination import require_free
from toolkit.export.verify import VerifyReport
from toolkit.exports import ExportFolder

pytest.importorskip("xllamacpp")


@pytest.mark.slow
def test_a_run_exports_and_its_gate_passes(
    qwen3_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "export"
    words = ["export", str(qwen3_run), "--gguf", "q8_0", "--chats", "2", "--out", str(out)]
    code, said, err = toolkit(capsys, monkeypatch, *words)
    assert code == 0, said + err
    assert "FAILED" not in said and "verified   passed: 10 checks" in said
    assert "note       llama.cpp makes '</s>' a control token by itself, whatever the file says" in said
    record, report = ExportFolder(out).record(), VerifyReport.load(out)
    assert record.status == "passed" and record.base.arch == "qwen3" and record.tokenizer["pre"] == "qwen2"
    check = report.of("tokenizer", record.files[-1].name)
    assert check and check.numbers["overrides"] == ["'</s>' a control token"] and check.numbers["different"] == 0
    require_free(out, force=True)  # nothing in it that another export would not replace
    text, template = (out / "Modelfile").read_text(), (out / "chat_template.jinja").read_text()
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
    assert answer(text, said, ["add"]) == Answer([("add", {"a": 3, "b": 4})], "")
    assert prompts_with_the_gguf(text, template) and "<tool_call>" in template
    assert record.calls_read_by["Ollama"] == record.calls_read_by["llama.cpp"] == "read"
    card = (out / "README.md").read_text()
    assert "| Ollama | read |" in card and "native format" in card and "--tool-call-parser hermes" in card
    assert "llama.cpp: read, Ollama: read" in (out / "export_report.md").read_text()
    calls = report.of("calls", record.files[-1].name)
    assert calls and calls.numbers["same"]["hits"] == calls.numbers["same"]["n"] == 2


@pytest.mark.endurance
def test_a_wrong_tokenizer_still_fails(qwen3_run: Path, tmp_path: Path) -> None:
    """The tokenizer in the base's folder is changed after the export: ordinary words come out otherwise."""
    from toolkit.export.export import export
    from toolkit.export.verify import verify

    base = Path(ExportFolder(tmp_path).path / "base")
    folder = export(qwen3_run / "adapter", gguf=["q8_0"], merged=False, verify=False, out=tmp_path / "out")
    record = folder.record()
    shutil.copytree(record.base.folder, base)
    spec = json.loads((base / "tokenizer.json").read_text())
    spec["model"]["merges"] = spec["model"]["merges"][:2000]
    (base / "tokenizer.json").write_text(json.dumps(spec))
    record.tokenizer["folder"] = str(base)
    record.save(folder.path)
    report = verify(folder.path, chats=1, threads=1)
    check = report.of("tokenizer", folder.ggufs()[0].name)
    assert check and check.outcome == "fail" and check.numbers["different"] > 10
    assert "tokenizer.ggml.merges is not that of" in check.advice
