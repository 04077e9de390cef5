"""llama.cpp's server in a process of its own, on a Unix socket that only this user can reach.

A signal is heard while a model loads, a file on which llama.cpp aborts or hangs costs a message instead of the command,
and no port is opened: nothing else on the machine, a web page least of all, can talk to it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path

from toolkit.errors import EngineError, ModelError
from toolkit.inference import llama_server
from toolkit.inference.gguf_check import check_gguf

BASE_SECONDS = 120.0  # to load a small file on a busy machine
BYTES_PER_SECOND = 10e6  # the slowest disk that is waited for
ENDING = 20.0  # seconds that a process may take to end, as one that writes its memory to a file
KEPT_LINES = 50
SOCKET = "llama.sock"


class LlamaProcess:
    """A server that begins to load a model. `socket` is the path of its Unix socket.

    plain: for people: special tokens are not written out in what is generated, and the schemas of tools are text and
    nothing more. seconds: most that loading may take; default: by the size of the file.

    Raises `ModelError` for a file that `check_gguf` refuses; llama.cpp does not see it.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int,
        threads: int,
        parallel: int = 1,
        lora: Path | None = None,
        plain: bool = False,
        seconds: float | None = None,
    ) -> None:
        check_gguf(path)
        if lora is not None:
            check_gguf(lora, adapter=True)
        self.path = path
        self._errors: deque[str] = deque(maxlen=KEPT_LINES)
        self._folder = Path(tempfile.mkdtemp(prefix="toolkit-"))
        if len(str(self._folder / SOCKET).encode()) > 100:  # what a socket's address holds
            self._folder.rmdir()
            self._folder = Path(tempfile.mkdtemp(prefix="toolkit-", dir="/tmp"))
        self.socket = self._folder / SOCKET
        self.closed = False
        settings = {
            "path": str(path.resolve()),
            "alias": path.stem,
            "socket": str(self.socket),
            "n_ctx": n_ctx,
            "parallel": parallel,
            "threads": threads,
            "lora": str(lora.resolve()) if lora else None,
            "plain": plain,
        }
        size = sum(one.stat().st_size for one in (path, lora) if one)
        self._seconds = seconds or BASE_SECONDS + size / BYTES_PER_SECOND
        try:
            self._process = subprocess.Popen(
                # -P: no folder of ours, nor the one worked in, may stand in for a library
                [sys.executable, "-P", llama_server.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal goes to the parent alone
            )
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it is gone already; `ready` says why
                self._process.stdin.write(json.dumps(settings).encode() + b"\n")
                self._process.stdin.flush()
        except BaseException:
            self.close()
            raise

    def ready(self) -> None:
        """Wait until the model is loaded. Raises `ModelError` when it can't be, with llama.cpp's reason."""
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._seconds)[0]:
            raise ModelError(f"{self.path}: llama.cpp has not loaded it in {self._seconds:.0f} seconds; given up")
        line = self._process.stdout.readline()
        if not line:
            raise ModelError(f"{self.path}: llama.cpp can't load it: {self.ended()}")
        said = json.loads(line)
        if "failed" in said:
            self._process.wait()
            if said["at"] == "import":
                raise EngineError(f"xllamacpp can't load: {said['failed']}")
            raise ModelError(f"{self.path}: llama.cpp can't load it: {self._reason() or said['failed']}")

    def _listen(self) -> None:
        """Keep the last of what it complains of."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors.append(line.decode(errors="replace").rstrip())

    @property
    def running(self) -> bool:
        return not self.closed and self._process.poll() is None

    def ended(self) -> str:
        """Why the process is gone, in a line; its own last words where it had any."""
        try:
            code = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            return "it is there, but broke the connection"
        how = f"it ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        reason = self._reason()
        return f"{how}: {reason}" if reason else how

    def wait(self) -> None:
        """Wait until the process has ended, by itself or by `close`."""
        self._process.wait()

    def _reason(self) -> str:
        """What llama.cpp gave as the cause of a failed load, or its last complaint."""
        self._listener.join(ENDING)  # reads to the end of what the process has said
        lines = [line.split(" E ", 1)[-1].strip() for line in self._errors if line.strip()]
        told = [line for line in lines if "error loading model" in line]
        return told[0].split("error loading model: ")[-1] if told else (lines[-1] if lines else "")

    def connect(self, timeout: float | None = None) -> http.client.HTTPConnection:
        return _Connection(self.socket, timeout)

    def close(self) -> None:
        """End the process at once, and take its socket away."""
        self.closed = True
        if process := getattr(self, "_process", None):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
