"""Broken models, run folders in use, and what a machine lacks, through the command line."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input.common import Call, errors, unplaced
from toolkit.errors import RunError
from toolkit.runs import RunFolder

ROOT = Path(__file__).parents[2]


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
    assert sorted(re.split("[=: ]", line.removeprefix("--set "))[0] for line in errors(err)) == keys
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
        (_cut, "spoilt does not load: "),
        (_change(num_hidden_layers=3), "spoilt: 9 weights are missing or of another shape"),
        (_change(intermediate_size=96), "spoilt: 6 weights are missing or of another shape"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "spoilt: the tokenizer can't be read: "),
        (lambda model: (model / "config.json").write_text("{"), "spoilt/config.json: is not readable JSON ("),
        (lambda model: (model / "chat_template.jinja").unlink(), "the tokenizer has no chat template"),
        (
            _change(quantization_config={"quant_method": "gptq", "bits": 4}),
            "spoilt/config.json: the model's weights are quantised already (gptq); adapters are trained over 16-bit",
        ),
        (
            _change(quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"}),
            "spoilt/config.json: the model's weights are quantised already (bitsandbytes); ",
        ),
        (lambda model: (model / "model.safetensors").unlink(), "spoilt lacks model.safetensors"),
    ],
)
def test_broken_models(
    call: Call, place: Path, tiny_model: Path, spoil: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(tiny_model, place / "spoilt")
    spoil(place / "spoilt")
    code, err = call("run", "base.toml", "--out", "out", "--set", "model.name=./spoilt")
    assert code == 2
    assert len(unplaced(err)) == 1 and unplaced(err)[0].startswith(message)
    assert not (place / "out").exists()


def test_a_quantised_model_is_refused_before_anything_is_tokenised_and_in_a_plan(
    call: Call, place: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, place / "spoilt")
    _change(quantization_config={"quant_method": "awq"})(place / "spoilt")
    told = "spoilt/config.json: the model's weights are quantised already (awq); "
    for words in (("run", "base.toml", "--out", "out"), ("plan", "base.toml", "--gpu", "t4")):
        code, err = call(*words, "--set", "model.name=./spoilt")
        assert (code, len(unplaced(err))) == (2, 1) and unplaced(err)[0].startswith(told)
    assert not (place / "cache" / "tables").exists()


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
        (["--out", "chats.jsonl"], "chats.jsonl: exists already; name another with --out"),  # no fault of its source
        (["--resume", "chats.jsonl"], "chats.jsonl: not a run folder (no recipe.toml in it)"),
        (["--out", "base.toml/x"], "base.toml/x: can't be made, base.toml is a file; name another folder with --out"),
        (["--resume", "first"], "first: this run is finished; nothing to resume"),
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
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a table that is still mapped is in nobody's way


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
    deadline = time.monotonic() + 600
    while not (tables.is_dir() and list(tables.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert not list(tables.iterdir())
