"""What a folder held when it was written, file by file, so that damage is seen before anything is made of it.

    manifest.json   {"version": 1, "files": {"optimizer.pt": {"bytes": 83114, "sha256": "..."}}, "checksum": "..."}

It is written last, once all else is on the disk; `checksum` is its own. A JSON object alone carries such a checksum too
(`sealed`), under the same name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.files import flush_all
from toolkit.hashes import sha256_of, sha256_of_text
from toolkit.machine import is_short

NAME = "manifest.json"
VERSION = 1
CHECKSUM = "checksum"


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of all its other keys."""
    rest = {key: one for key, one in value.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: _checksum(rest)}


def is_damaged(value: Mapping[str, Any]) -> bool:
    """Whether an object is not what was sealed; one that never was passes."""
    return CHECKSUM in value and value[CHECKSUM] != sealed(value)[CHECKSUM]


def _checksum(value: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(value, default=str))  # what a reader will see of it
    return sha256_of_text(json.dumps(plain, sort_keys=True))


def write_manifest(folder: Path) -> None:
    """List all files of `folder` in its manifest, and write everything through to the disk.

    The folder may take its name after that: a crash of the machine leaves it whole, or not there.
    """
    files = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / NAME).write_text(_text(files), encoding="utf-8")
    flush_all(folder)


def has_manifest(folder: Path) -> bool:
    return (folder / NAME).is_file()


def damage(
    folder: Path,
    only: Collection[str] | None = None,
    *,
    largest: int | None = None,
    digest: Callable[[Path], str] = sha256_of,
) -> str | None:
    """What is not as the folder's manifest says, as `optimizer.pt: 12 bytes, 83,114 were written`, or None.

    only: names to look at; others may differ or be missing, and files that the manifest does not name are wrong where
    it is None. largest: files of more bytes are known by their size alone. digest: gives a file's SHA-256. A folder
    without a manifest has no damage that could be told: ask `has_manifest` first.
    """
    if not has_manifest(folder):
        return None
    files = _listed(folder)
    if files is None:
        return f"{NAME}: damaged"
    for name, about in files.items():
        if only is None or name in only:
            wrong = _differs(folder / name, about, largest, digest)
            if wrong:
                return f"{name}: {wrong}"
    if only is None:
        there = {path.relative_to(folder).as_posix() for path in _files(folder)}
        if more := sorted(there - set(files)):
            return f"{more[0]}: not written with the others"
    return None


def listed(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the files that a whole manifest lists; empty where there is none."""
    return {name: about["sha256"] for name, about in (_listed(folder) or {}).items()}


def safetensors_damage(path: Path) -> str:
    """What the header of a safetensors file tells of damage: its size, and whether it can be read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                return "cut short or changed"
            header = jsons.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if is_short(error):
            raise
        return f"its header can't be read ({error})"
    wanted = 8 + length + max(ends, default=0)
    return "" if size == wanted else f"{size:,} bytes, {wanted:,} wanted"


def safetensors_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a model folder, from its files' headers; empty where there are none that can be
    read, or they are quantised."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        if safetensors_damage(path):
            return {}
        with path.open("rb") as file:
            header = jsons.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        if any(entry.get("dtype") not in ("F32", "F16", "BF16") for entry in header.values()):
            return {}
        found |= {name: tuple(entry["shape"]) for name, entry in header.items()}
    return found


def _differs(path: Path, about: Mapping[str, Any], largest: int | None, digest: Callable[[Path], str]) -> str:
    try:
        if not path.is_file():
            return "a folder" if path.exists() else "missing"
        size = path.stat().st_size
        if size != about["bytes"]:
            return f"{size:,} bytes, {about['bytes']:,} were written"
        if (largest is None or size <= largest) and digest(path) != about["sha256"]:
            return "changed since it was written (another SHA-256)"
    except OSError as error:
        return f"can't be read: {(error.strerror or str(error)).lower()}"
    return ""


def _listed(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The files of a manifest that is, byte for byte, as one is written; None otherwise."""
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
        files: dict[str, dict[str, Any]] = jsons.loads(text)["files"]
        return files if text == _text(files) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _text(files: Mapping[str, Any]) -> str:
    return json.dumps(sealed({"version": VERSION, "files": files}), indent=1) + "\n"


def _files(folder: Path) -> list[Path]:
    """All files but the manifest, and those that systems leave behind under hidden names."""
    found = (path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
