"""Who can compute K-quants on this machine: llama.cpp where it is found, else libgguf, checked before it is trusted.

libgguf is small, Apache-2.0, and its author is not known; its wheels hold llama.cpp's row kernels. So it is used in one
version only, only when the library's sha256 is one of those that were compared with llama.cpp, or, for a build that is
not listed (another platform), when it gives llama.cpp's bytes for a fixed input; the second is checked in either case.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from toolkit.errors import EngineError, ToolkitError
from toolkit.export.writer import FILE_TYPES
from toolkit.hardware import free_cores
from toolkit.hashes import sha256_of
from toolkit.versions import version_of

LIBGGUF_VERSION = "0.2.2"
LIBGGUF_SHA256 = {
    "96856dc628ef6e7d211297e7856842c6796aaee66accf24e52d6dce0721bd757": "cp311 linux x86_64",
    "1618076d5f42ecd8dd982ed421338970d00fd42c7453f77a1953c0554c43394d": "cp312 linux x86_64",
    "cd7da726342d6d4ccf483e100aecf7b54fbc6e11947c10a6588b1eb4293c2d26": "cp313 linux x86_64",
}
# of `probe_rows` quantised by llama.cpp's ggml_quantize_chunk (llama-cpp-python 0.3.36)
PROBE_SHA256 = {
    "Q4_K": "46aa77dfff5a00e30fda84672e872954d746624e2a801690dbde1641a3bbff0c",
    "Q5_K": "c432a6379f016d6a11967bfb1b8d2fb6852df54ecf15399cd169e908ac7faa2a",
    "Q6_K": "795504cece129019601dd05ecf704b74b1ef73673a894556e21bc0d59aa2f712",
    "Q5_0": "a4f5798c9f9530a689d4b26948a06b5a52553710292741b22e73fb343514a4a5",
    "Q5_1": "ca089d1cf918a3fc62f91e3c4f8218cab7f85c3941b3b0cea0fdedfded1ae409",
    "Q8_0": "19ecfd5e40b63721d34443db3f03d48b45fc041d1e62388c49dc804a6b8b0c20",
}
FIX = "pip install -e '.[gguf]', or put llama.cpp's llama-quantize on PATH (or its path in TOOLKIT_LLAMA_CPP)"


class External(Protocol):
    """A llama.cpp that quantises whole files."""

    @property
    def name(self) -> str: ...

    def quantize(self, source: Path, target: Path, quant: str) -> None:
        """Write `target`. Raises `ToolkitError` when llama.cpp says no."""
        ...


def find_external() -> External | None:
    """llama-cpp-python, else llama-quantize, else None. Raises `EngineError` for a TOOLKIT_LLAMA_CPP that is none."""
    if importlib.util.find_spec("llama_cpp") is not None:
        return LlamaCppPython()
    if (named := os.environ.get("TOOLKIT_LLAMA_CPP")) is not None:
        path = Path(named).expanduser()
        places = [path] if path.is_file() else [path / "llama-quantize", path / "build" / "bin" / "llama-quantize"]
        for place in places:
            if os.access(place, os.X_OK) and place.is_file():
                return LlamaQuantize(place)
        raise EngineError(f"TOOLKIT_LLAMA_CPP: no program {places[0]}; wanted llama-quantize, or its folder")
    found = shutil.which("llama-quantize")
    return LlamaQuantize(Path(found)) if found else None


@dataclass(frozen=True, slots=True)
class LlamaQuantize:
    """The program of a llama.cpp build."""

    program: Path

    @property
    def name(self) -> str:
        return f"llama-quantize ({self.program})"

    def quantize(self, source: Path, target: Path, quant: str) -> None:
        command = [str(self.program), str(source), str(target), quant, str(free_cores())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise ToolkitError(f"{self.program}: can't be run ({error.strerror}); {FIX}") from None
        if done.returncode or not target.is_file():
            last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise ToolkitError(f"{self.program}: {quant} failed: {last}")


@dataclass(frozen=True, slots=True)
class LlamaCppPython:
    """libllama of the installed llama-cpp-python."""

    @property
    def name(self) -> str:
        return f"llama.cpp (llama-cpp-python {version_of('llama-cpp-python')})"

    def quantize(self, source: Path, target: Path, quant: str) -> None:
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as error:
            raise EngineError(f"llama-cpp-python is installed but does not load ({error}): remove it") from None

        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.nthread, parameters.ftype = free_cores(), FILE_TYPES[quant]
        quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(quiet, None)

        code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
        if code:
            raise ToolkitError(f"{self.name}: {quant} failed with code {code}")


def probe_rows() -> npt.NDArray[np.float32]:
    """float32[4, 512]: the same numbers on every machine, of both signs, over four orders of magnitude."""
    state = np.arange(2048, dtype=np.uint64) * np.uint64(1103515245) + np.uint64(12345)
    state = (state ^ (state >> np.uint64(7))) * np.uint64(2654435761) % np.uint64(2**31)
    rows = (state.astype(np.float64) / 2**31 - 0.5).reshape(4, 512)
    return (rows * np.array([[1.0], [0.1], [0.01], [0.001]])).astype(np.float32)


def check_bytes(quantize: Callable[[npt.NDArray[np.float32], str], npt.NDArray[np.uint8]]) -> list[str]:
    """The types for which a row quantiser does not give llama.cpp's bytes."""
    rows = probe_rows()
    return [
        kind
        for kind, wanted in PROBE_SHA256.items()
        if hashlib.sha256(np.ascontiguousarray(quantize(rows, kind)).tobytes()).hexdigest() != wanted
    ]


@cache
def load_libgguf() -> tuple[Callable[[npt.NDArray[np.float32], str], npt.NDArray[np.uint8]], str]:
    """libgguf's row quantiser and its name. Raises `EngineError` where it is missing, another, or does not load."""
    version = version_of("libgguf")
    if version is None:
        raise EngineError(f"nothing here can compute K-quants: {FIX}; q8_0, f16 and bf16 need neither")
    if version != LIBGGUF_VERSION:
        raise EngineError(f"libgguf {version} is installed, but only {LIBGGUF_VERSION} is checked: {FIX}")
    library = _library()
    digest = sha256_of(library)
    try:
        import gguf
        import libgguf
    except (ImportError, OSError) as error:
        raise EngineError(f"libgguf does not load here ({error}); {FIX}") from None

    def quantize(rows: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
        packed: Any = libgguf.quantize_rows(rows, int(gguf.GGMLQuantizationType[kind]))
        return np.asarray(packed, dtype=np.uint8)

    if wrong := check_bytes(quantize):
        raise EngineError(
            f"libgguf {version} ({library}) does not give llama.cpp's bytes for {', '.join(wrong)}; {FIX}"
        )
    known = "sha256 known" if digest in LIBGGUF_SHA256 else f"sha256 {digest[:12]} not listed, bytes as llama.cpp's"
    return quantize, f"libgguf {version} ({known})"


def _library() -> Path:
    found = importlib.util.find_spec("libgguf")
    folder = Path(found.origin).parent if found is not None and found.origin else Path()
    libraries = sorted([*folder.glob("_libgguf*.so"), *folder.glob("_libgguf*.pyd")])
    if not libraries:
        raise EngineError(f"libgguf is installed without its library ({folder}); {FIX}")
    return libraries[0]
