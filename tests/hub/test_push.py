"""A run pushed to a hub on loopback: what lies there then, how it loads from there, and what faults leave."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from tests.hub.server import TOKEN, Hub
from tests.tiny import write_recipe
from toolkit.errors import InputError, RunError
from toolkit.export.push import Options, push
from toolkit.exports import BaseRecord, ExportFolder, ExportRecord, FileRecord, MergeRecord
from toolkit.recipe import load
from toolkit.runs import RunFolder

BASE = "me/base"
GGUF = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A finished run of two updates, with an export that has a GGUF and merged weights."""
    from toolkit.training.run import run

    place = tmp_path_factory.mktemp("push")
    recipe = write_recipe(place, tiny_model, 24, train={"max_steps": 2}, eval={"generate": 4, "max_new_tokens": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(place / "cache"))
        made = run(load(recipe), place / "mine")
    export(made)
    yield made


def export(made: RunFolder, status: Any = "passed") -> None:
    """An export folder, its files made up."""
    folder = ExportFolder(made.export)
    folder.merged.mkdir(parents=True, exist_ok=True)
    files = []
    for name, kind, type in (("mine-Q8_0.gguf", "gguf", "Q8_0"), ("merged/model.safetensors", "merged", "F16")):
        (made.export / name).write_bytes(GGUF)
        files.append(FileRecord(name, kind, type, hashlib.sha256(GGUF).hexdigest(), len(GGUF), "none", 0.0))  # type: ignore[arg-type]
    (folder.merged / "config.json").write_text("{}")
    folder.modelfile.write_text("FROM ./mine-Q8_0.gguf\n")
    ExportRecord(
        name="mine",
        created="",
        command="",
        run=str(made.path),
        recipe=str(made.recipe),
        adapter=str(made.adapter),
        base=BaseRecord("base", None, "/somewhere", "Apache-2.0", "LlamaForCausalLM", "llama"),
        tokenizer={},
        data=None,
        max_length=512,
        load_in_4bit=False,
        merge_base=MergeRecord("auto", "original", ""),
        lora=None,
        merged={"folder": "merged"},
        source16="F16",
        beside={"merged/config.json": hashlib.sha256(b"{}").hexdigest()},
        files=files,
        notes=[],
        versions={},
        status=status,
        calls_read_by={"llama.cpp": "read"},
    ).save(made.export)


def pushed(made: RunFolder, repo: str = "me/mine", **options: Any) -> list[str]:
    return list(push(made.path, Options(repo, base=BASE, **options)))


def refused(made: RunFolder, repo: str = "me/mine", **options: Any) -> str:
    with pytest.raises((RunError, InputError)) as error:
        pushed(made, repo, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_everything_and_a_card_in_one_commit(hub: Hub, trained: RunFolder) -> None:
    lines = pushed(trained)
    repo = hub.model("me/mine")
    assert repo.private and len(repo.commits) == 1
    adapter = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    exported = {"mine-Q8_0.gguf", "Modelfile", "merged/model.safetensors", "merged/config.json"}
    others = {".gitattributes", "README.md", "toolkit.json", "chat_template.jinja"}
    assert repo.files.keys() == adapter | exported | others
    assert repo.files["mine-Q8_0.gguf"] == GGUF
    assert repo.files["adapter_model.safetensors"] == (trained.adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads(repo.files["adapter_config.json"])["base_model_name_or_path"] == BASE
    whole = b"".join(repo.files.values())
    assert str(trained.path.parent).encode() not in whole, "paths of this machine stay here"
    assert any(line.startswith("pushed ") and repo.sha[:12] in line for line in lines)


def test_the_card_names_the_file_that_answers_best(hub: Hub, trained: RunFolder) -> None:
    """However the types were ordered for `toolkit export`."""
    folder = ExportFolder(trained.export)
    record = folder.record()
    first = FileRecord("mine-Q4_K_M.gguf", "gguf", "Q4_K_M", hashlib.sha256(GGUF[:99]).hexdigest(), 99, "none", 0.0)
    (trained.export / first.name).write_bytes(GGUF[:99])
    record.files.insert(0, first)
    record.save(trained.export)
    try:
        pushed(trained, "me/two")
    finally:
        (trained.export / first.name).unlink()
        export(trained)
    card = hub.model("me/two").files["README.md"].decode()
    assert "llama.cpp (Q4_K_M, Q8_0):" in card and "llama-server -hf me/two:Q8_0 --jinja" in card


def test_the_card_has_what_was_measured_and_how_to_use_it(hub: Hub, trained: RunFolder) -> None:
    import yaml

    pushed(trained)
    card = hub.model("me/mine").files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == BASE and front["license"] == "apache-2.0" and front["library_name"] == "peft"
    after = json.loads(trained.summary.read_text())["calls_after"]["overall"]["correct"]
    assert f"| right answers | 0 of 4, 0% (0% to 49%) | {after['hits']} of 4," in card
    assert "| exact calls |" in card and "but for case" not in card  # nothing more is right without case
    assert "llama-server -hf me/mine:Q8_0 --jinja" in card and "ollama create mine -f Modelfile" in card
    assert 'from_pretrained("me/mine", subfolder="merged", dtype="auto")' in card
    assert hashlib.sha256(GGUF).hexdigest() in card and "24 chats" not in card
    only = pushed(trained, "me/adapter", only=["adapter"])
    card = hub.model("me/adapter").files["README.md"].decode()
    assert only and "llama-server" not in card and "merged" not in card and "mine-Q8_0.gguf" not in card


@pytest.mark.slow
def test_the_cards_code_runs_from_the_hub(hub: Hub, trained: RunFolder, tiny_model: Path, tmp_path: Path) -> None:
    """In a process that knows nothing but the hub, which has the base model too."""
    base = hub.model(BASE)
    base.files.update({file.name: file.read_bytes() for file in tiny_model.iterdir() if file.is_file()})
    pushed(trained)
    card = hub.model("me/mine").files["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environment |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any(f"GET /{BASE}/resolve" in one for one in hub.asked) and len(done.stdout) > 1


def test_a_second_push_sends_only_what_changed_and_takes_its_own_old_files_away(hub: Hub, trained: RunFolder) -> None:
    pushed(trained)
    hub.asked.clear()
    lines = pushed(trained, only=["adapter"])
    assert not [one for one in hub.asked if one.startswith("PUT /lfs")]
    assert {line.split()[1].rstrip(",") for line in lines if line.startswith("removed ")} == {
        "Modelfile",
        "merged/config.json",
        "merged/model.safetensors",
        "mine-Q8_0.gguf",
    }
    repo = hub.model("me/mine")
    assert "mine-Q8_0.gguf" not in repo.files and any("mine-Q8_0.gguf" in files for files in repo.commits.values())


def test_a_repository_with_other_files_is_left_alone(hub: Hub, trained: RunFolder) -> None:
    repo = hub.model("me/mine")
    repo.files = {"model.safetensors": b"somebody's", "README.md": b"# theirs"}
    before = dict(repo.files)
    said = refused(trained)
    assert said.startswith("me/mine: exists and holds other files (README.md, model.safetensors); --force adds")
    assert "the same command goes on" not in said
    assert repo.files == before and not [one for one in hub.asked if "preupload" in one]
    pushed(trained, force=True)
    assert repo.files["model.safetensors"] == b"somebody's" and b"# mine" in repo.files["README.md"]


@pytest.mark.parametrize(
    ("pattern", "how", "status", "said"),
    [
        ("preupload", "status", 403, "the token may not do that"),
        ("POST /api/repos/create", "status", 429, "too many requests, says the hub (429)"),
        ("PUT /lfs", "status", 429, "too many requests, says the hub (429)"),
        ("PUT /lfs", "gone", 0, ""),
        ("objects/batch", "status", 500, "the hub fails (500)"),
        ("/commit/", "gone", 0, ""),
        ("/commit/", "status", 503, "the hub fails (503)"),
        ("", "gone", 0, ""),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_lost(
    hub: Hub, trained: RunFolder, pattern: str, how: str, status: int, said: str
) -> None:
    pushed(trained, only=["adapter"])
    repo = hub.model("me/mine")
    before, kept = dict(repo.files), {file: file.read_bytes() for file in trained.path.rglob("*") if file.is_file()}
    hub.spoil(pattern, how, status)
    message = refused(trained)
    assert said in message and message.startswith("me/mine: ") and "the same command goes on" in message
    assert repo.files == before
    assert {file: file.read_bytes() for file in trained.path.rglob("*") if file.is_file()} == kept
    hub.faults.clear()
    pushed(trained)
    assert repo.files["mine-Q8_0.gguf"] == GGUF


def test_a_hub_that_keeps_other_bytes_is_found_out(hub: Hub, trained: RunFolder) -> None:
    hub.spoil("PUT /lfs/" + hashlib.sha256(GGUF).hexdigest(), "spoil")
    assert re.search(
        "the hub has (mine-Q8_0.gguf|merged/model.safetensors) otherwise than it is here", refused(trained)
    )


def test_no_token(hub: Hub, trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refused(trained).startswith("no token for the hub here: log in by `hf auth login` or HF_TOKEN")
    assert not hub.asked


def test_a_token_that_the_hub_does_not_know_and_another_namespace(
    hub: Hub, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "you/mine: the token may not do that" in refused(trained, "you/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "me/mine: the hub knows no such token, or none was given" in refused(trained)
    assert not hub.repos


def test_what_is_wrong_here_is_said_before_anything_is_sent(hub: Hub, trained: RunFolder, tmp_path: Path) -> None:
    assert refused(trained, "mine").startswith("mine: wanted a model repository of the hub")
    assert "--only ggufs: wanted some of adapter, gguf, merged, did you mean gguf?" in refused(trained, only=["ggufs"])
    with pytest.raises(InputError, match="is a folder here; --base NAME says which model of the hub it is"):
        list(push(trained.path, Options("me/mine")))
    (trained.export / "mine-Q8_0.gguf").write_bytes(GGUF + b"x")
    try:
        assert "mine-Q8_0.gguf: is not as it was exported" in refused(trained)
        export(trained)
        (ExportFolder(trained.export).merged / "config.json").write_text("{ }")
        assert "merged/config.json: is not as it was exported" in refused(trained)
        export(trained, "failed")
        assert "so they are not pushed; --only adapter pushes the adapter" in refused(trained)
        assert pushed(trained, only=["adapter"])
    finally:
        export(trained)
    with pytest.raises(RunError, match="no such run folder"):
        list(push(tmp_path / "none", Options("me/mine", base=BASE)))


def test_an_unfinished_run_and_a_damaged_adapter_are_not_pushed(hub: Hub, trained: RunFolder) -> None:
    summary, weights = trained.summary.read_text(), trained.adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    try:
        trained.summary.unlink()
        assert "the run is not finished; go on with it:" in refused(trained)
        trained.summary.write_text(summary)
        weights.write_bytes(whole[:-1] + b"\0")
        assert "adapter_model.safetensors" in refused(trained) and not hub.asked
    finally:
        trained.summary.write_text(summary)
        weights.write_bytes(whole)


def test_the_command(
    hub: Hub, trained: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = toolkit(
        capsys, monkeypatch, "push", str(trained.path), "me/mine", "--base", BASE, "--only", "adapter"
    )
    assert code == 0 and "pushing    8 files" not in out and "pushed     " in out and "the card says how" in out
