"""`toolkit serve`: llama.cpp's OpenAI-compatible server on this machine's loopback address, until Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path
from types import FrameType

from toolkit.errors import InputError, RunError
from toolkit.export.layout import ExportFolder
from toolkit.inference.gguf import LOOPBACK, GgufModel


def find_gguf(word: str) -> Path:
    """The GGUF that a word means: the file, or the smallest one of an export folder or of a run's export.

    Raises `RunError` with the command that makes one.
    """
    path = Path(word).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        return path
    for folder in (path, path / "export"):
        if (folder / "export.json").is_file():
            found = [file for file in ExportFolder(folder).ggufs() if file.is_file()]
            if not found:
                raise RunError(f"{folder}: no GGUF in it; write one: toolkit export RUN --gguf q8_0 --out FOLDER")
            return min(found, key=lambda file: file.stat().st_size)
    if (path / "recipe.toml").is_file():
        raise RunError(f"{path}: no GGUF of this run yet; write one: toolkit export {path} --gguf q8_0")
    raise RunError(f"{word}: no GGUF file, export folder or run; llama.cpp serves GGUF files")


def require_port(port: int) -> None:
    """Raise `InputError` when another program listens on this port of loopback, with one that is free."""
    if _free(port):
        return
    other = next((one for one in range(port + 1, min(65536, port + 100)) if _free(one)), None)
    advice = f"; port {other} is free: --port {other}" if other else ""
    raise InputError(f"--port: {LOOPBACK}:{port} is taken, or not yours to use{advice}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def serve(word: str, *, port: int = 8080, context: int = 4096, parallel: int = 1, threads: int | None = None) -> None:
    """Serve a GGUF until SIGINT or SIGTERM. Raises an `InputError` for what can't be served."""
    path = find_gguf(word)
    require_port(port)
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    with GgufModel(path, n_ctx=context, threads=threads, parallel=parallel, port=port) as model:
        before = {number: signal.signal(number, stopped) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
            print(f"serving {path.name} at {model.address}/v1 ({model.threads} CPU threads); Ctrl-C stops")
            print(
                f"curl {model.address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'", flush=True
            )
            while not stop.wait(0.2):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    print("stopped")
