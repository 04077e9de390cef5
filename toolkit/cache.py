"""Where the toolkit keeps what can be made again, and how files and folders appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ToolkitError


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


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends well, and goes away when it fails.

    Two processes may make the same folder: the first to finish wins, the other's copy is dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
