"""What the machine refuses is one plain line."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.machine import refusal


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EFBIG, "File too large", "x.gguf"), "x.gguf: the file would be larger than"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: raise the limit, as by `ulimit -n"),
        (OSError(errno.EROFS, "Read-only file system", b"cache/\xff"), "cache/\udcff: the file system is read-only"),
        (OSError("error (os error 28)"), "no space left on the disk"),
        (RuntimeError("failed to bind. port: 0, code: -24, name: EMFILE, message: x"), "too many open files: raise"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "no space left"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes"),
            "not enough memory; close other programs, or take a smaller model, train.max_length or batch size "
            "(4.0 GiB more were asked for)",
        ),
        (MemoryError(), "not enough memory"),
        (RuntimeError("can't start new thread"), "no further thread or process can be started: there is too little"),
        (
            type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})(
                'ThreadPoolBuildError { kind: IOError(Os { code: 11, kind: WouldBlock, message: "Resource" }) }'
            ),
            "no further thread or process can be started",
        ),
        (
            UnicodeEncodeError("utf-8", "run 'a/b\udcff.toml'", 8, 9, "surrogates not allowed"),
            "a/b\udcff.toml: a name that is not UTF-8",
        ),
    ],
)
def test_refusals_are_told(error: BaseException, said: str) -> None:
    assert str(refusal(error)).startswith(said)


def test_the_reason_behind_an_error_is_found() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        except OSError as error:
            raise ValueError("could not save") from error
    except ValueError as error:
        assert str(refusal(error)).startswith("x: no space left")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("28"), RuntimeError("shapes"), OSError(errno.ENOENT, "")])
def test_other_errors_are_none_of_the_machine_s(error: Exception) -> None:
    assert refusal(error) is None


def test_real_allocations_that_fail_are_told() -> None:
    import numpy
    import torch

    for ask in (lambda: torch.empty(10**15), lambda: numpy.empty(10**15), lambda: bytearray(10**18)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            ask()
        assert str(refusal(caught.value)).startswith("not enough memory")


RECIPE = '[model]\nname = "./model"\n[[data.sources]]\nsource = "builtin:tools"\nsize = 200\n'


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are of Unix")
@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        pytest.param("RLIMIT_FSIZE", 2000, "the file would be larger than", marks=pytest.mark.endurance),
        ("RLIMIT_NOFILE", 6, "too many open files"),
    ],
)
def test_a_command_within_limits_ends_in_one_line(tmp_path: Path, limit: str, value: int, said: str) -> None:
    from tests.data.toys import save_tokenizer

    save_tokenizer(tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "r.toml").write_text(RECIPE)
    code = (
        f"import sys, resource\nimport numpy, transformers, toolkit.data.tablefile\n"
        f"from toolkit.commands.main import main\n"
        f"sys.argv = ['toolkit', 'data', 'build', 'r.toml']\n"
        f"resource.setrlimit(resource.{limit}, ({value}, {resource.getrlimit(getattr(resource, limit))[1]}))\nmain()"
    )
    env = {**os.environ, "TOOLKIT_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1 and said in lines[0], done.stderr


def test_a_library_that_finds_no_memory_as_it_is_imported() -> None:
    told = refusal(ImportError("lib.so: failed to map segment from shared object"))
    assert told is not None and told.startswith("not enough memory")
