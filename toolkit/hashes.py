"""SHA-256, in hexadecimal, of files and texts."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Of a text as UTF-8. What stands for bytes of a file's name that are not UTF-8 counts as it is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
