"""Where the toolkit keeps what can be made again, and how files and folders appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.manifest import flush, flush_all, sha256_of


def cache_root() -> Path:
    """Of converted models and token tables: `$TOOLKIT_CACHE`, or `toolkit` below `$XDG_CACHE_HOME` (`~/.cache`)."""
    if root := os.environ.get("TOOLKIT_CACHE"):
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "toolkit"


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise `ToolkitError` when the disk that holds `folder` has less than `needed` bytes left."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ToolkitError(
            f"no disk space for {what}: {there} has {free / 2**30:.2f} GiB free, {needed / 2**30:.2f} GiB are needed; "
            "free some, or name another folder (--out, or TOOLKIT_CACHE for the cache)"
        )


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file so that it appears whole or not at all; `durable`: even where the machine stops a moment later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            _hold(handle)
            file.write(text)
            file.flush()
            if durable:
                os.fsync(handle)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        if durable:
            flush(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def keep(path: Path, text: str) -> None:
    """Write a cache file that `kept` reads back."""
    write_text(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def kept(path: Path) -> str | None:
    """What was kept in a cache file; None where it is not there, damaged, or not written by `keep`."""
    try:
        checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if checksum == hashlib.sha256(text.encode()).hexdigest() else None


def remembered_sha256(path: Path) -> str:
    """A file's SHA-256. Remembered by path, size, time of change and inode, so a big file is read once."""
    path = path.resolve()
    about = path.stat()
    identity = json.dumps([str(path), about.st_size, about.st_mtime_ns, about.st_ino])
    place = cache_root() / "hashes" / hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if (known := kept(place)) is not None:
        return known
    found = sha256_of(path)
    keep(place, found)
    return found


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and goes away when it fails.

    Two processes may make the same folder: the first to finish wins, the other's copy is dropped. What a process that
    was killed left of the same folder goes away too.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target)
    work, handle = _held_folder(target)
    try:
        yield work
        work.chmod(0o755)
        flush_all(work)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        flush(target.parent)
    finally:
        os.close(handle)
        remove(work)


def _held_folder(target: Path) -> tuple[Path, int]:
    """A new folder, and the open handle by which it is known to be at work."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # another process took it for a leftover before it was held
            handle = os.open(work, os.O_RDONLY)
            if _hold(handle) is not False and work.is_dir():
                return work, handle
            os.close(handle)


def clear_leftovers(target: Path) -> None:
    """Remove what killed processes left when they were writing `target`; what is being written now is left alone."""
    pattern = f".{glob.escape(target.name)}.????????"  # as tempfile names them
    for path in target.parent.glob(pattern):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if _hold(handle):
                    remove(path)
            finally:
                os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder of the cache at once: what others have open of it stays theirs."""
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


def _hold(handle: int) -> bool | None:
    """Lock an open file or folder for as long as it is open; False where another process holds it, None where the file
    system knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
