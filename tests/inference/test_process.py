"""llama.cpp in a process of its own: how it ends, whatever happens there."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from toolkit.errors import EngineError, ModelError
from toolkit.exports import ExportFolder
from toolkit.inference import llama_server
from toolkit.inference.gguf import GgufModel
from toolkit.inference.process import LlamaProcess


def runtime_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a script in the place of the one that runs llama.cpp."""
    script = folder / "other.py"
    script.write_text(f"import os, sys, time\nsys.stdin.readline()\n{does}\n")
    monkeypatch.setattr(llama_server, "__file__", str(script))


def opened(exported: Path, seconds: float | None = None) -> LlamaProcess:
    return LlamaProcess(ExportFolder(exported).ggufs()[0], n_ctx=256, threads=1, seconds=seconds)


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("time.sleep(1000)", r"has not loaded it in 1 seconds; given up"),
        ("print('GGML_ASSERT(n > 0) failed', file=sys.stderr, flush=True); os.abort()", r"SIGABRT: GGML_ASSERT\(n > 0"),
        ("os._exit(3)", r"ended with exit code 3"),
    ],
)
def test_a_load_that_does_not_end_well(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
) -> None:
    runtime_that(does, tmp_path, monkeypatch)
    process = opened(exported, seconds=1 if "sleep" in does else None)
    with pytest.raises(ModelError, match=told) as error:
        process.ready()
    assert "\n" not in str(error.value) and process.closed and not process.socket.parent.exists()
    assert not any(str(tmp_path) in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_a_runtime_that_can_not_load_there(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_that("""print('{"failed": "no GLIBC_2.38", "at": "import"}')""", tmp_path, monkeypatch)
    with pytest.raises(EngineError, match=r"can't load: no GLIBC_2.38"):
        opened(exported).ready()


def test_a_model_whose_process_ends(exported: Path) -> None:
    with GgufModel(ExportFolder(exported).ggufs()[0], n_ctx=256, threads=1) as model:
        assert model.tokenize("Chat") and model.process.running
        (child,) = [one for one in psutil.Process().children() if "llama_server" in " ".join(one.cmdline())]
        child.send_signal(signal.SIGSEGV)
        while child.status() != psutil.STATUS_ZOMBIE:  # until then it may still answer
            time.sleep(0.01)
        with pytest.raises(EngineError, match=r"llama\.cpp is gone: it ended by SIGSEGV"):
            model.tokenize("Chat")
        assert not model.process.running
    with pytest.raises(ValueError, match="the model is closed"):
        model.tokenize("Chat")


def test_the_socket_is_this_users_alone_and_goes(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    for folder in (tmp_path, deep):  # the address of a socket holds about a hundred characters
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with GgufModel(ExportFolder(exported).ggufs()[0], n_ctx=256, threads=1) as model:
            place = model.process.socket.parent
            assert place.stat().st_mode & 0o077 == 0 and place.stat().st_uid == os.getuid()
            assert (place.parent == folder) == (folder is tmp_path and len(str(model.process.socket)) <= 100)
        assert not place.exists()


def test_the_script_needs_nothing_of_the_toolkit() -> None:
    """It runs where the package can be imported only from the folder that is worked in, which is not searched."""
    text = Path(llama_server.__file__).read_text()
    assert "import toolkit" not in text and "from toolkit" not in text
