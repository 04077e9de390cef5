"""Where memory or open files run out while a file is read, the file is not called broken."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.tiny import write_recipe
from toolkit.data import hub_files
from toolkit.data.tokenizers import load_tokenizer
from toolkit.engines.base import Choice
from toolkit.engines.peft import load_base
from toolkit.errors import InputError
from toolkit.export import adapter, tensors
from toolkit.export.verify.files import GgufFile
from toolkit.hardware import detect
from toolkit.machine import is_short, refusal
from toolkit.manifest import safetensors_damage
from toolkit.recipe import load
from toolkit.recipe.schema import SourceSection
from toolkit.trusted import read_config


def behind(error: Exception) -> OSError:
    """As transformers tells of it."""
    outer = OSError("Can't load the tokenizer. If you were trying to load it from the hub, make sure ...")
    outer.__context__ = error
    return outer


SHORT = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EMFILE, "Too many open files"),
    ImportError("libx.so: failed to map segment from shared object"),
    RuntimeError("std::bad_alloc"),
    behind(MemoryError()),
]
BROKEN = [OSError(errno.EIO, "Input/output error"), ValueError("expected value at line 1"), behind(KeyError("model"))]


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_what_runs_out_is_told_from_what_is_broken(error: Exception) -> None:
    assert is_short(error) and refusal(error)


@pytest.mark.parametrize("error", BROKEN, ids=repr)
def test_what_is_broken_is_not_short(error: Exception) -> None:
    assert not is_short(error)


def base(model: Path) -> Any:
    recipe = load(write_recipe(model.parent, model, 4)).recipe
    return load_base(recipe, model, Choice("fp32", ""), detect())


def weights(model: Path) -> Any:
    return tensors._index(model)


def adapted(model: Path) -> Any:
    return adapter.open_adapter(model, cast("Any", None))


def header(model: Path) -> None:
    if wrong := safetensors_damage(model / "model.safetensors"):
        raise InputError(wrong)


READERS: list[tuple[Callable[[Path], Any], str, type[Exception]]] = [
    (load_tokenizer, "toolkit.data.tokenizers.load_auto_tokenizer", Exception),
    (base, "toolkit.engines.peft.load_model", OSError),
    (base, "toolkit.engines.peft.load_model", ImportError),
    (weights, "toolkit.export.tensors.safe_open", OSError),
    (adapted, "toolkit.export.adapter._shapes", Exception),
    (header, "pathlib.Path.open", OSError),
    (lambda model: read_config(model / "config.json"), "pathlib.Path.read_text", OSError),
    (lambda model: GgufFile(model / "x.gguf"), "toolkit.export.verify.files.read_raw", OSError),
    (lambda _: hub_files._found(SourceSection(source="a/b")), "toolkit.data.hub_files._ask", Exception),
]


@pytest.mark.parametrize(("read", "place", "kind"), READERS)
def test_a_file_is_not_blamed_for_what_runs_out(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Path], Any],
    place: str,
    kind: type[Exception],
) -> None:
    monkeypatch.setattr(adapter, "_config", lambda _: {})
    monkeypatch.setattr(adapter, "_refuse", lambda *_: None)
    monkeypatch.setattr(hub_files, "commit_of", lambda _: None)
    model = tmp_path / "model"
    model.symlink_to(tiny_model)
    other = ImportError("no flash_attn") if kind is ImportError else OSError(errno.EIO, "Input/output error")
    for error in [*(one for one in SHORT if isinstance(one, kind)), other]:

        def fails(*_: object, raised: Exception = error, **__: object) -> Any:
            raise raised

        with monkeypatch.context() as patched, pytest.raises(Exception) as caught:
            patched.setattr(place, fails)
            read(model)
        assert (caught.value is error) == (error is not other), (error, caught.value)
        assert isinstance(caught.value, InputError) == (error is other)
