"""Which file of an export answers where several lie in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.command import toolkit
from toolkit.errors import ModelError, RunError
from toolkit.exports import ExportFolder
from toolkit.gguf_raw import read_raw
from toolkit.inference.gguf_check import read_key
from toolkit.inference.serve.command import find_gguf
from toolkit.inference.which_gguf import BESIDE, memory_of, take


def several(exported: Path, folder: Path, *types: str) -> ExportFolder:
    """An export with a file of each type; all are the tiny one, the first longest by zeros at its end."""
    shutil.copytree(exported, folder)
    record = json.loads((folder / "export.json").read_text())
    (one,) = [file for file in record["files"] if file["kind"] == "gguf"]
    others = [file for file in record["files"] if file["kind"] != "gguf"]
    written = (folder / one["name"]).read_bytes()
    (folder / one["name"]).unlink()
    for number, kind in enumerate(types):
        (folder / f"tiny-{kind}.gguf").write_bytes(written + bytes(len(types) - number))
        others.append(one | {"name": f"tiny-{kind}.gguf", "type": kind})
    (folder / "export.json").write_text(json.dumps(record | {"files": others}))
    return ExportFolder(folder)


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=count))


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        (("F16", "Q8_0", "Q4_K_M"), "Q8_0"),
        (("BF16", "Q6_K", "Q4_K_M"), "BF16"),
        (("Q6_K", "Q4_K_M"), "Q6_K"),
        (("Q4_K_M",), "Q4_K_M"),
    ],
)
def test_the_most_exact_and_q8_0_before_16_bits(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, types: tuple[str, ...], wanted: str
) -> None:
    export = several(exported, tmp_path / "run" / "export", *types)
    free(monkeypatch, 2**40)
    for word in (export.path, export.path.parent):
        taken = find_gguf(str(word), 4096, 1)
        assert taken.path.name == f"tiny-{wanted}.gguf"
        if len(types) == 1:
            assert taken.note == ""
        else:
            assert taken.note.startswith(
                f"tiny-{wanted}.gguf is taken of {len(types)} GGUF files; to take another, name it: "
            )
            assert taken.note.endswith(f"serve {export.path}/tiny-Q4_K_M.gguf")
    named = find_gguf(str(export.path / f"tiny-{types[-1]}.gguf"), 4096, 1)
    assert (named.path.name, named.note) == (f"tiny-{types[-1]}.gguf", "")


def test_merged_weights_point_to_the_files_beside_them(exported: Path, tmp_path: Path) -> None:
    export = several(exported, tmp_path / "export", "Q8_0")
    (export.path / "merged").mkdir(exist_ok=True)
    with pytest.raises(RunError, match=f"merged: no GGUF in it; the folder above holds some: .*serve {export.path}$"):
        find_gguf(str(export.path / "merged"), 4096, 1)


def test_what_does_not_fit_is_passed_over_and_said(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = several(exported, tmp_path / "export", "F16", "Q8_0", "Q4_K_M")
    q8, q4 = (export.path / f"tiny-{kind}.gguf" for kind in ("Q8_0", "Q4_K_M"))
    for left, wanted, why in (
        (memory_of(q8, 512, 2), q8, ""),
        (memory_of(q4, 512, 2), q4, ", the most exact that fits: tiny-Q8_0.gguf needs 1.0 GiB, and 1.0 GiB are free"),
        (0, q4, ", the smallest: tiny-Q8_0.gguf needs 1.0 GiB, and 0.0 GiB are free"),
    ):
        free(monkeypatch, left)
        taken = take(export, "chat", 512, 2)
        assert taken is not None and taken.path == wanted
        assert taken.note.startswith(f"{wanted.name} is taken of 3 GGUF files{why}; to take another, name it: ")
        assert taken.note.endswith(f"chat {q4 if wanted == q8 else q8}")
    q8.unlink()
    free(monkeypatch, 2**40)
    taken = take(export, "chat", 512)
    assert taken is not None and taken.path.name == "tiny-F16.gguf" and " is taken of 2 GGUF files;" in taken.note


def test_memory_is_of_weights_context_and_what_is_beside(exported: Path, tmp_path: Path) -> None:
    (path,) = exported.glob("*.gguf")
    size, raw = path.stat().st_size, read_raw(path)
    layers, heads, width, longest = (
        read_key(raw, f"llama.{key}")
        for key in ("block_count", "attention.head_count_kv", "attention.key_length", "context_length")
    )
    a_token = 2 * layers * heads * width * 2  # keys and values, in 16 bits
    assert memory_of(path, 100, 1) == size + BESIDE + 100 * a_token
    assert memory_of(path, 100, 3) == size + BESIDE + 300 * a_token
    assert memory_of(path, 10**9, 1) == size + BESIDE + longest * a_token  # llama.cpp gives no more than that
    broken = tmp_path / "x.gguf"
    broken.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"x\.gguf"):
        memory_of(broken, 100, 1)


def test_chat_says_which_file_answers(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export = several(exported, tmp_path / "export", "F16", "Q8_0")
    free(monkeypatch, 2**40)
    words = ["--once", "Hi", "--max-new-tokens", "2", "--threads", "1", "--tools", "none"]
    code, _, err = toolkit(capsys, monkeypatch, "chat", str(export.path), *words)
    assert code == 0 and "note: tiny-Q8_0.gguf is taken of 2 GGUF files; to take another, name it: " in err
    code, _, err = toolkit(capsys, monkeypatch, "chat", str(export.path / "tiny-F16.gguf"), *words)
    assert code == 0 and "GGUF files" not in err
