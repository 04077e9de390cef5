"""Files and folders that appear whole or not at all, and locks that end with the process that holds them.

Each is written under a hidden name beside its own (`.NAME.making-...`), which a lock says is at work. What a process
that was killed left of it has no lock, and goes when the same is written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str, *, durable: bool = False, new: bool = False) -> None:
    """Write a file so that it appears whole or not at all; `durable`: even where the machine stops a moment later.

    `new`: raises `FileExistsError` where there is one already; of two processes, one gets the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work, handle = _held_file(path)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(handle)
            work.chmod(0o644)
            if new:
                _take_name(work, path)
            else:
                work.replace(path)
        if durable:
            flush(path.parent)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


def unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder, which need not be there yet; empty where it can."""
    above = folder
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        return f"{above} is a file"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} can't be written"


def _take_name(work: Path, path: Path) -> None:
    try:
        os.link(work, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("xb") as file:
            file.write(work.read_bytes())
    work.unlink()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and goes away when it fails.

    Two processes may make the same folder: the first to finish wins, the other's copy is dropped.
    """
    with making_folder(target) as work:
        yield work
        work.chmod(0o755)
        flush_all(work)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        flush(target.parent)


@contextmanager
def making_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, which goes away at the end unless it has another name by then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    work, handle = _held_folder(target)
    try:
        yield work
    finally:
        os.close(handle)
        remove(work)


def _held_file(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, and the open handle by which it is known to be at work."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        work = Path(name)
        if _hold(handle) is not False and work.exists():
            return work, handle
        os.close(handle)  # another process took it for a leftover before it was held
        work.unlink(missing_ok=True)


def _held_folder(target: Path) -> tuple[Path, int]:
    """A new folder, and the open handle by which it is known to be at work."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # another process took it for a leftover before it was held
            handle = os.open(work, os.O_RDONLY)
            if _hold(handle) is not False and work.is_dir():
                return work, handle
            os.close(handle)


def leftovers(target: Path) -> list[Path]:
    """What is being written of `target`, or was when its process was killed."""
    return list(target.parent.glob(f"{glob.escape(_prefix(target))}*"))


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes left when they were writing `target`; what is being written now is left alone."""
    for path in leftovers(target):
        remove_unless_held(path)


def clear_all_leftovers(folder: Path) -> None:
    """`clear_leftovers` of whatever was being written in a folder."""
    for path in folder.glob(".*.making-*"):
        remove_unless_held(path)


def remove_unless_held(path: Path) -> None:
    """Remove a file or folder, if it is there and no process holds it; not where the file system knows no locks."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            if _hold(handle):
                remove(path)
        finally:
            os.close(handle)


def _prefix(target: Path) -> str:
    return f".{target.name}.making-"


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder at once: what others have open of it stays theirs."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.gone")
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.rename(aside)
    remove(aside)


def set_aside(path: Path) -> Path:
    """Give a damaged file or folder another name beside its own (`damaged-NAME`), over what has that; returns it."""
    aside = path.with_name(f"damaged-{path.name}")
    remove(aside)
    path.rename(aside)
    return aside


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file or folder; False where another process does, True too where the file system knows no locks."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield _hold(handle) is not False
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether another process holds a file or folder; to ask is in nobody's way."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return _hold(handle, fcntl.LOCK_SH) is False
    finally:
        os.close(handle)


def _hold(handle: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Lock an open file or folder for as long as it is open; False where another process holds it, None where the file
    system knows no locks."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def flush_all(folder: Path) -> None:
    """Write a folder, and everything in it, through to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Write a file, or a folder's list of names, through to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
