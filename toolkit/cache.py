"""Where the toolkit keeps what can be made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from toolkit.files import write_text
from toolkit.hashes import sha256_of, sha256_of_text


def cache_root() -> Path:
    """Of converted models and token tables: `$TOOLKIT_CACHE`, or `toolkit` below `$XDG_CACHE_HOME` (`~/.cache`)."""
    if root := os.environ.get("TOOLKIT_CACHE"):
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "toolkit"


def keep(path: Path, text: str) -> None:
    """Write a cache file that `kept` reads back."""
    write_text(path, f"{sha256_of_text(text)}\n{text}")


def kept(path: Path) -> str | None:
    """What was kept in a cache file; None where it is not there, damaged, or not written by `keep`."""
    try:
        checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if checksum == sha256_of_text(text) else None


def remembered_sha256(path: Path) -> str:
    """A file's SHA-256. Remembered by path, size, time of change and inode, so a big file is read once."""
    path = path.resolve()
    about = path.stat()
    identity = json.dumps([str(path), about.st_size, about.st_mtime_ns, about.st_ino])
    place = cache_root() / "hashes" / sha256_of_text(identity)[:32]
    if (known := kept(place)) is not None:
        return known
    found = sha256_of(path)
    keep(place, found)
    return found
