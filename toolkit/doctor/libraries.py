"""CUDA libraries that packages bring: whether they load beside this torch, and what is missing where they do not."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MISSING = re.compile(r"(lib[\w+-]+\.so(?:\.\d+)?): cannot open shared object file")
PACKAGES = {  # that have a library, by its name
    "libnvJitLink.so.12": "nvidia-nvjitlink-cu12",
    "libnvJitLink.so.13": "nvidia-nvjitlink",
    "libcudart.so.12": "nvidia-cuda-runtime-cu12",
    "libcudart.so.13": "nvidia-cuda-runtime",
    "libcublas.so.12": "nvidia-cublas-cu12",
    "libcublas.so.13": "nvidia-cublas",
    "libcublasLt.so.12": "nvidia-cublas-cu12",
    "libcublasLt.so.13": "nvidia-cublas",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A package's library; `error`: why it does not load, `missing`: the library that it lacks, `found`: the folder
    below site-packages that has that one all the same."""

    package: str
    file: str
    error: str = ""
    missing: str = ""
    found: str = ""

    @property
    def command(self) -> str:
        """What brings the missing library."""
        if self.found:
            return f'export LD_LIBRARY_PATH="{self.found}:$LD_LIBRARY_PATH"'
        return f"python -m pip install {PACKAGES[self.missing]}" if self.missing in PACKAGES else ""


def load_libraries(cuda: str | None) -> Iterator[Loaded]:
    """Load what bitsandbytes and xformers bring for a torch that was built for `cuda` ("13.0") and is imported already:
    only then are the libraries that it brings there for them."""
    if cuda is None:
        return
    if (folder := _package("bitsandbytes")) is not None:
        yield _loaded("bitsandbytes", bitsandbytes_library(folder, cuda))
    if (folder := _package("xformers")) is not None:
        yield _loaded("xformers", next(iter(sorted(folder.glob("_C*.so"))), folder / "_C.so"))


def bitsandbytes_library(folder: Path, cuda: str) -> Path:
    """The library that bitsandbytes takes: that of this CUDA, else the nearest older one of its major version, else the
    nearest newer one."""
    wanted = int(cuda.replace(".", ""))
    numbers = (re.fullmatch(r"libbitsandbytes_cuda(\d+)\.so", file.name) for file in folder.glob("*.so"))
    there = sorted(int(match[1]) for match in numbers if match and int(match[1]) // 10 == wanted // 10)
    older, newer = [one for one in there if one <= wanted], [one for one in there if one > wanted]
    return folder / f"libbitsandbytes_cuda{older[-1] if older else newer[0] if newer else wanted}.so"


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _loaded(package: str, file: Path) -> Loaded:
    if not file.is_file():
        return Loaded(package, file.name, f"there is no {file.name}")
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        text = str(error)
        match = _MISSING.search(text)
        missing = match[1] if match else ""
        return Loaded(package, file.name, text.splitlines()[0][:200], missing, _place(missing) if missing else "")
    return Loaded(package, file.name)


def _place(library: str) -> str:
    """The folder of a pip package that has a library."""
    for root in sys.path:
        for file in Path(root).glob(f"nvidia/**/{library}") if root else ():
            return str(file.parent)
    return ""
