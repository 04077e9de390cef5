"""What the machine refuses, in plain words: a full disk, too many open files, no memory left. Never a bug of ours."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import ToolkitError

_ELSEWHERE = "name another folder (--out, or TOOLKIT_CACHE for the cache)"
_ADVICE = "; close other programs, or take a smaller model, train.max_length or batch size"
_SAID = {
    errno.ENOSPC: f"no space left on the disk: free some, or {_ELSEWHERE}",
    errno.EDQUOT: f"the disk quota is used up: free some, or {_ELSEWHERE}",
    errno.EFBIG: f"the file would be larger than the file system or `ulimit -f` allows: raise it, or {_ELSEWHERE}",
    errno.EMFILE: "too many open files: raise the limit, as by `ulimit -n 4096`",
    errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: f"not enough memory{_ADVICE}",
    errno.EAGAIN: "no further thread or process can be started: there is too little memory for one, or they are more "
    "than `ulimit -u` or the container allows",
    errno.EROFS: f"the file system is read-only; {_ELSEWHERE}",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "links lead round in a circle",
    errno.ENOTDIR: "not a directory",
    errno.EISDIR: "is a directory",
    errno.EIO: "the disk can't be read or written (input/output error)",
    errno.ENODEV: "no such device",
    errno.ENXIO: "no such device",
    errno.ESTALE: "the network folder has changed under us; try again",
}
_SHORT = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
# How libraries in Rust and C++ tell of the same: the number within a text.
_NUMBERED = re.compile(r"\(os error (\d+)\)|\bcode: (\d+), kind:|\bcode: -(\d+), name:|\[Errno (\d+)\]")
_UNNUMBERED = (
    (re.compile(r"PytorchStreamWriter failed|file write failed|unexpected pos \d+ vs \d+"), errno.ENOSPC),
    (re.compile(r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|std::bad_alloc"), errno.ENOMEM),
    (re.compile(r"Unable to allocate .* for an array|malloc of size \d+ failed|Cannot allocate memory"), errno.ENOMEM),
    (re.compile(r"failed to map segment from shared object"), errno.ENOMEM),  # a library that is imported
    (re.compile(r"can't start new thread"), errno.EAGAIN),
    (re.compile(r"No space left on device"), errno.ENOSPC),
    (re.compile(r"Disk quota exceeded"), errno.EDQUOT),
)
PANIC = "pyo3_runtime"  # the module of what libraries in Rust raise, in all of them, where they panic
_ASKED = re.compile(r"tried to allocate (\d+) bytes|malloc of size (\d+)")


def refusal(error: BaseException) -> str | None:
    """What the machine refused, in one line with the file where that is known; None for any other error."""
    return next((told for one in _chain(error) if (told := _told(one))), None)


def is_short(error: BaseException) -> bool:
    """Whether memory, threads or open files ran out, here or in an error behind this one.

    That is no fault of the file that was being read: who says of a file that it is broken asks this first.
    """
    return any(_number(one) in _SHORT for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def no_memory(error: BaseException) -> str | None:
    """What is said of memory that ran out, None for any other error."""
    told = _told(error)
    return told.replace(_ADVICE, "") if told and told.startswith("not enough memory") else None


def is_full(error: BaseException) -> bool:
    """Whether the disk, or a quota on it, is full."""
    return _number(error) in (errno.ENOSPC, errno.EDQUOT)


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds `path`, or will."""
    return shutil.disk_usage(_existing(path)).free


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise `ToolkitError` when the disk that holds `folder` has less than `needed` bytes left."""
    if (free := free_bytes(folder)) < needed:
        raise ToolkitError(
            f"no disk space for {what}: {_existing(folder)} has {free / 2**30:.2f} GiB free, {needed / 2**30:.2f} GiB "
            f"are needed; free some, or {_ELSEWHERE}"
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _told(error: BaseException) -> str | None:
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{_around(error)}: a name that is not UTF-8; rename the file or folder"
    if (number := _number(error)) is None:
        return None
    if isinstance(error, OSError) and error.errno == number:
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        return f"{place}: {_SAID[number]}" if place else _SAID[number]
    return _memory(str(error)) if number == errno.ENOMEM else _SAID[number]


_LIBRARIES = ("safetensors", "safetensors_rust", "pyarrow", "zstandard", "numpy", "tokenizers", "builtins", PANIC)


def _number(error: BaseException) -> int | None:
    """What the machine refused, as an error number of `_SAID`; of what libraries raise, by their words."""
    if isinstance(error, OSError) and error.errno in _SAID:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if not isinstance(error, (OSError, RuntimeError)) and type(error).__module__.split(".")[0] not in _LIBRARIES:
        return None
    text = str(error)
    for match in _NUMBERED.finditer(text):
        if (number := int(next(group for group in match.groups() if group))) in _SAID:
            return number
    return next((number for pattern, number in _UNNUMBERED if pattern.search(text)), None)


def _memory(text: str) -> str:
    asked = _ASKED.search(text)
    size = f" ({int(asked[1] or asked[2]) / 2**30:,.1f} GiB more were asked for)" if asked else ""
    return f"{_SAID[errno.ENOMEM]}{size}"


def _around(error: UnicodeEncodeError) -> str:
    """The word that holds what can't be written."""
    words = re.split(r"[\s\"']", error.object)
    return next((word for word in words if not word.isascii() and re.search("[\ud800-\udfff]", word)), "")[-120:]
