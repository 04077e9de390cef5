"""Whole exports of a tiny run: what is in the folder, what export.json says, and every way to stop before or after."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.export.shapes import adapter, base_model
from toolkit.errors import InputError, ModelError, RunError, ToolkitError
from toolkit.export import export as module
from toolkit.export.destination import require_free
from toolkit.export.export import check_gate, export
from toolkit.export.merge import open_weights
from toolkit.export.source import find_source
from toolkit.export.tensors import stream
from toolkit.exports import ExportFolder
from toolkit.hashes import sha256_of
from toolkit.machine import require_space


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and a finished run on it."""
    root = tmp_path_factory.mktemp("made")
    base = base_model(root / "base", "llama", hidden_size=64, intermediate_size=96)
    run = root / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(
        f'[model]\nname = "{base}"\n[data]\ncall_format = "json"\n[train]\nmax_length = 512\n'
        '[[data.sources]]\nsource = "builtin:tools"\nsize = 40\nmax_tools = 2\n[eval]\nholdout = 4\n'
    )
    adapter(run / "adapter", base)
    environment = {
        "engine": {"precision": {"value": "bf16"}},
        "model": {
            "config_sha256": sha256_of(base / "config.json"),
            "weights": {"model.safetensors": (base / "model.safetensors").stat().st_size},
        },
    }
    (run / "environment.json").write_text(json.dumps(environment))
    summary: dict[str, Any] = {"updates": 3, "chats": 40, "seconds": 2.5, "first_eval_loss": 3.0, "last_eval_loss": 1.0}
    names = ("right_tool", "exact", "exact_but_case")
    rates = [{"overall": {name: {"hits": hits, "n": 9, "share": hits / 9} for name in names}} for hits in (2, 8)]
    summary |= {"calls_before": rates[0], "calls_after": rates[1]}
    (run / "summary.json").write_text(json.dumps(summary))
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    for path in (copy / "run" / "recipe.toml", copy / "run" / "adapter" / "adapter_config.json"):
        path.write_text(path.read_text().replace(str(made), str(copy)))
    return copy / "run"


def test_a_whole_export(run: Path) -> None:
    (run / "tools.json").write_text('{"tools": [], "distinct": 0}')
    folder = export(run, gguf=["q8_0", "f16", "q8_0"], lora=True, verify=False)
    assert folder.path == run / "export"
    assert (folder.path / "tools.json").read_text() == (run / "tools.json").read_text()
    record = folder.record()
    assert {"merged/config.json", "merged/tokenizer.json", "adapter/adapter_config.json"} <= record.beside.keys()
    assert all(sha256_of(folder.path / name) == digest for name, digest in record.beside.items())
    assert not record.beside.keys() & {file.name for file in record.files}
    assert [(file.name, file.kind, file.type) for file in record.files] == [
        ("merged/model.safetensors", "merged", "BF16"),
        ("run-F16.gguf", "gguf", "F16"),
        ("run-Q8_0.gguf", "gguf", "Q8_0"),
        ("run-lora-F16.gguf", "lora", "F16"),
    ]
    for file in record.files:
        path = folder.path / file.name
        assert file.bytes == path.stat().st_size and file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record.status == "unverified" and record.source16 == "F16" and record.max_length == 512
    assert record.data is not None and record.data.call_format == "json"
    assert record.base.arch == "llama" and record.tokenizer["pre"] == "gpt-2"
    assert record.lora is not None and record.lora["r"] == 4 and record.lora["modules"] == 14
    assert record.merge_base.base == "original" and "not quantised in training" in record.merge_base.reason
    assert (folder.adapter / "adapter_model.safetensors").is_file()
    assert "FROM ./run-Q8_0.gguf" in folder.modelfile.read_text()
    card = folder.card.read_text()
    assert "run-Q8_0.gguf" in card and "3.000 before, 1.000 after" in card and "builtin:tools" in card
    assert "right tool: 2 of 9 before, 8 of 9 after" in card
    assert "- exact: 2 of 9 before" in card and "but case" not in card  # which says nothing more here
    assert "- Calls: json format" in card and "| llama.cpp | read, one a turn; several end in an error |" in card
    assert any(note.startswith("calls of this format are not read everywhere") for note in record.notes)
    require_free(folder.path, force=True)  # nothing in it that another export would not replace
    assert sum(1 for _ in stream(open_weights(record))) == 20
    assert folder.ggufs() == [folder.path / "run-F16.gguf", folder.path / "run-Q8_0.gguf"]
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    with pytest.raises(RunError, match="never compared with the trained model: toolkit export --verify-only"):
        export(run, gguf=["q8_0"], verify=False)


def test_what_is_not_asked_for_is_not_there(run: Path, tmp_path: Path) -> None:
    folder = export(run, gguf=["q8_0"], merged=False, out=tmp_path / "out", verify=False)
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"adapter", "export.json", "README.md", "Modelfile", "run-Q8_0.gguf"}
    assert folder.record().source16 == "F16" and folder.record().merged is None
    alone = export(run, adapter_only=True, out=tmp_path / "alone")
    assert {path.name for path in alone.path.iterdir()} == {"adapter", "export.json", "README.md", "run-lora-F16.gguf"}


def test_ollama_and_the_card_are_given_the_most_exact_of_the_small_files(tmp_path: Path, run: Path) -> None:
    folder = export(run, gguf=["f16", "q8_0", "q4_k_m"], merged=False, out=tmp_path / "out", verify=False)
    (line,) = (line for line in (folder.path / "Modelfile").read_text().splitlines() if line.startswith("FROM "))
    assert line.endswith("-Q8_0.gguf")
    assert (
        "`toolkit chat run-Q8_0.gguf`, or llama.cpp: `llama-server -m run-Q8_0.gguf --jinja`" in folder.card.read_text()
    )
    assert min(folder.ggufs(), key=lambda path: path.stat().st_size).name.endswith("-Q4_K_M.gguf")


def test_an_adapter_with_its_base_and_a_base_alone(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = run.parent / "base"
    of_run = export(run, gguf=["f16"], verify=False)
    bare = export(run / "adapter", gguf=["f16"], base=str(base), verify=False)
    assert bare.path == Path("exports/adapter")
    assert bare.record().recipe is None and "adapter alone" in bare.record().merge_base.reason
    plain = export(base, gguf=["f16"], verify=False)
    assert plain.record().adapter is None and not plain.adapter.exists()

    def tensors(folder: ExportFolder) -> list[bytes]:
        import gguf

        return [tensor.data.tobytes() for tensor in gguf.GGUFReader(folder.ggufs()[0]).tensors]

    assert tensors(of_run) == tensors(bare) != tensors(plain)


class Verdict:
    def __init__(self, passed: bool) -> None:
        self.passed = passed
        self.lines = ["F16: mean KL 0.4, wanted 0.001"]


@pytest.mark.parametrize("passed", [True, False])
def test_the_gate(run: Path, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    told = SimpleNamespace()

    def verify(folder: Path, *, chats: int, max_minutes: float, console: Any) -> Verdict:
        assert ExportFolder(folder).record().status == "unverified"
        told.bounds = chats, max_minutes
        return Verdict(passed)

    monkeypatch.setattr("toolkit.export.export.verify", verify)
    folder = export(run, gguf=["q8_0"], chats=7, max_minutes=3)
    assert told.bounds == (7, 3)
    assert folder.record().status == ("passed" if passed else "failed")
    if passed:
        check_gate(folder)
        assert not folder.failed.exists()
    else:
        assert folder.failed.read_text() == "F16: mean KL 0.4, wanted 0.001\n"
        assert folder.ggufs()[0].is_file()
        with pytest.raises(ToolkitError, match=r"FAILED\.txt; the files are kept") as caught:
            check_gate(folder)
        assert caught.value.exit_code == 1


def overflow(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = run.parent / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, path, metadata={"format": "pt"})


def test_overflow_takes_bf16_where_f16_was_not_asked_for(run: Path) -> None:
    overflow(run)
    folder = export(run, gguf=["q8_0"], verify=False)
    record = folder.record()
    assert record.source16 == "BF16" and "quants are made from BF16" in record.notes[0]
    assert not list(folder.path.glob(".*"))


def test_overflow_stops_where_f16_was_asked_for(run: Path) -> None:
    overflow(run)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(ModelError, match=r"up_proj\.weight reaches 999,424.*write bf16"):
        export(run, gguf=["f16"], verify=False)
    assert sorted(path.name for path in run.iterdir()) == before  # nothing half-written


def test_all_problems_at_once(run: Path) -> None:
    config = run.parent / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_act": "relu"}))
    (run / "environment.json").unlink()
    with pytest.raises(InputError) as caught:
        export(run, gguf=["q4km", "q8_0", "x"], verify=False)
    first, second, third = map(str, caught.value.problems)
    assert "q4km is no GGUF type" in first and "did you mean q4_k_m?" in first
    assert "x is no GGUF type" in second and "wanted one of f16" in second and "hidden_act relu" in third


def test_no_space(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, needed: int, what: str) -> None:
        require_space(folder, needed + 2**60, what)

    monkeypatch.setattr("toolkit.export.preflight.require_space", full)
    with pytest.raises(ToolkitError, match="no disk space for the export") as caught:
        export(run, gguf=["q8_0"], verify=False)
    assert caught.value.exit_code == 1 and not (run / "export").exists()


def test_a_disk_that_fills_up_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "quantize_gguf", full)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(OSError, match="No space left"):
        export(run, gguf=["q8_0"], verify=False)
    assert sorted(path.name for path in run.iterdir()) == before


def test_another_base_than_the_runs(run: Path) -> None:
    path = run.parent / "base" / "config.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ModelError, match=r"config\.json is not the one that .* was trained with") as caught:
        find_source(str(run))
    assert "--base" in str(caught.value)


@pytest.mark.parametrize(
    ("what", "base", "words"),
    [
        ("run", "Qwen/Qwen3-1.7B", "leave --base out"),
        ("base", "Qwen/Qwen3-1.7B", "not an adapter folder"),
        ("run/recipe.toml", None, "is a file; wanted a run folder"),
        ("empty", None, "neither a run folder"),
        ("nothing", None, "no folder"),
    ],
)
def test_what_is_pointed_at(run: Path, what: str, base: str | None, words: str) -> None:
    (run.parent / "empty").mkdir()
    with pytest.raises(RunError, match=words):
        find_source(str(run.parent / what), base)


def test_an_unfinished_run(run: Path) -> None:
    shutil.rmtree(run / "adapter")
    with pytest.raises(RunError, match=r"no adapter yet; finish the run: toolkit run .* --resume"):
        find_source(str(run))


def test_an_adapter_whose_base_is_elsewhere(run: Path) -> None:
    path = run / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "/gone/base"}))
    with pytest.raises(RunError, match="/gone/base is not on this machine; name it with --base"):
        find_source(str(run / "adapter"))
    note = find_source(str(run / "adapter"), str(run.parent / "base")).note
    assert note is None  # the same folder name
    shutil.copytree(run.parent / "base", run.parent / "renamed")
    assert "trained on /gone/base" in (find_source(str(run / "adapter"), str(run.parent / "renamed")).note or "")


def test_an_old_or_foreign_export_json(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not an export folder"):
        ExportFolder(tmp_path).record()
    for text in ("{", "[]", '{"version": 0}', '{"version": 1, "files": []}'):
        (tmp_path / "export.json").write_text(text)
        with pytest.raises(RunError, match=r"export\.json: "):
            ExportFolder(tmp_path).record()
