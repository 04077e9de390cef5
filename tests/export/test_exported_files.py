"""`toolkit verify --export`: files of an export against the hashes in export.json."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.reports.folders import make_run
from toolkit.errors import RunError
from toolkit.exports import BaseRecord, ExportRecord, FileKind, FileRecord, MergeRecord
from toolkit.hashes import sha256_of
from toolkit.manifest import write_manifest
from toolkit.runs import RunFolder
from toolkit.terminal import new_console
from toolkit.training.verify.exported import verify_files


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with an adapter and an export of two files that are none a runtime would take."""
    folder = make_run(tmp_path / "run", log="smollm2-h200")
    for place in (folder.adapter, folder.export / "adapter"):
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text("{}")
        (place / "adapter_model.safetensors").write_bytes(b"adapter")
        write_manifest(place)
    files: list[FileRecord] = []
    kinds: list[tuple[str, FileKind]] = [("run-Q8_0.gguf", "gguf"), ("merged/model.safetensors", "merged")]
    for name, kind in kinds:
        path = folder.export / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 100)
        files.append(FileRecord(name, kind, "Q8_0", sha256_of(path), path.stat().st_size, "numpy", 0.1))
    (folder.export / "merged" / "config.json").write_text("{}")
    ExportRecord(
        name="run", created="", command="", run=str(folder.path), recipe=None, adapter=None,
        base=BaseRecord("m", None, "", None, "LlamaForCausalLM", "llama"), tokenizer={}, data=None, max_length=None,
        load_in_4bit=False, merge_base=MergeRecord("auto", "original", ""), lora=None, merged=None, source16=None,
        files=files, notes=[], versions={}, status="passed",
        beside={"merged/config.json": sha256_of(folder.export / "merged" / "config.json")},
    ).save(folder.export)  # fmt: skip
    return folder


def verify(path: Path) -> tuple[bool, str, str]:
    said = io.StringIO()
    return *verify_files(path, new_console(file=said, soft_wrap=True)), said.getvalue()


def test_files_as_written_are_said_to_be_so_and_shown_on_the_page(run: RunFolder) -> None:
    run.report.write_text("")
    fine, told, said = verify(run.path)
    assert fine and told.startswith("verified: 4 files of ") and "compared with the trained model" in told
    assert said.count("same       ") == 4
    page = run.report.read_text()
    assert "Verification" in page and "as written" in page and told in page
    assert verify(run.export)[0]  # the export folder itself


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("run-Q8_0.gguf", None, "missing"),
        ("run-Q8_0.gguf", b"short", r"5 bytes, 1,300 were written"),
        ("merged/model.safetensors", b"merged/model.safetensorx" * 100, r"changed since it was written \(SHA-256 "),
        ("merged/config.json", b"{ }", r"changed since it was written \(SHA-256 "),
        ("merged/config.json", None, "missing"),
        ("adapter/adapter_model.safetensors", b"other", r"of another adapter than .*run/adapter \(SHA-256 "),
    ],
)
def test_a_file_that_is_another_is_named(run: RunFolder, name: str, content: bytes | None, told: str) -> None:
    path = run.export / name
    path.unlink() if content is None else path.write_bytes(content)
    fine, said, lines = verify(run.path)
    assert not fine
    with pytest.raises(AssertionError, match=rf"not what was exported: .*export/{name}: {told}"):
        raise AssertionError(said)
    assert f"DIFFERENT  {name}: " in lines


def test_where_there_is_no_export(run: RunFolder, tmp_path: Path) -> None:
    run.export.rename(run.path / "again")
    with pytest.raises(RunError, match=r"export: no export here; wanted one of again"):
        verify(run.path)
    with pytest.raises(RunError, match=r"rum: no such folder, did you mean run"):
        verify(tmp_path / "rum")
    (run.path / "again" / "export.json").unlink()
    with pytest.raises(RunError, match=r"make one with: toolkit export .*run --gguf q8_0"):
        verify(run.path)
