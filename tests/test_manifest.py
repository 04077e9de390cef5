"""A folder that is not what was written is seen to be so, whatever was done to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.hashes import sha256_of
from toolkit.manifest import NAME, damage, has_manifest, is_damaged, listed, sealed, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "made"
    (place / "inner").mkdir(parents=True)
    (place / "a.bin").write_bytes(bytes(range(256)))
    (place / "empty.txt").write_bytes(b"")
    (place / "inner" / "b.json").write_text("{}")
    write_manifest(place)
    return place


def test_a_whole_folder(folder: Path, tmp_path: Path) -> None:
    assert has_manifest(folder) and damage(folder) is None
    assert listed(folder) == {name: sha256_of(folder / name) for name in ("a.bin", "empty.txt", "inner/b.json")}
    shutil.copytree(folder, tmp_path / "copy")
    assert damage(tmp_path / "copy") is None
    (folder / ".DS_Store").write_text("a system's own")
    assert damage(folder) is None


def turn_to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "a.bin").write_bytes((f / "a.bin").read_bytes()[:-1]), "a.bin: 255 bytes, 256 were written"),
        (lambda f: (f / "a.bin").write_bytes(b""), "a.bin: 0 bytes, 256 were written"),
        (lambda f: (f / "a.bin").write_bytes((f / "a.bin").read_bytes() + b"x"), "a.bin: 257 bytes, 256 were written"),
        (lambda f: (f / "a.bin").write_bytes(bytes(256)), "a.bin: changed since it was written"),
        (lambda f: (f / "empty.txt").write_bytes(b"x"), "empty.txt: 1 bytes, 0 were written"),
        (lambda f: (f / "inner" / "b.json").unlink(), "inner/b.json: missing"),
        (lambda f: turn_to_folder(f / "a.bin"), "a.bin: a folder"),
        (lambda f: (f / "more.bin").write_bytes(b"x"), "more.bin: not written with the others"),
        (lambda f: (f / NAME).write_bytes(b""), "manifest.json: damaged"),
        (lambda f: (f / NAME).write_bytes(b"\xff\xfe"), "manifest.json: damaged"),
        (lambda f: (f / NAME).write_text("[]"), "manifest.json: damaged"),
        (lambda f: (f / NAME).write_text((f / NAME).read_text() + " "), "manifest.json: damaged"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, harm: Callable[[Path], object], told: str) -> None:
    harm(folder)
    found = damage(folder)
    assert found is not None and found.startswith(told)


def test_every_byte_counts(folder: Path) -> None:
    """Of the manifest itself too: one that was changed is never taken for what was written."""
    for name in ("inner/b.json", NAME):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert damage(folder) is not None, (name, place)
        (folder / name).write_bytes(whole)
    assert damage(folder) is None


def test_a_look_at_sizes_alone_and_at_some_files(folder: Path) -> None:
    (folder / "a.bin").write_bytes(bytes(256))
    assert damage(folder, largest=255) is None and damage(folder, largest=256) is not None
    assert damage(folder, only=("inner/b.json",)) is None
    (folder / "a.bin").unlink()
    assert damage(folder, largest=0) == "a.bin: missing"


def test_an_object_with_a_checksum() -> None:
    value = {"a": 1.5, "b": [{"c": "ä"}], "path": Path("x"), "n": None}
    made = json.loads(json.dumps(sealed(value), default=str))
    assert not is_damaged(made) and sealed(made) == made
    assert not is_damaged({"a": 1.5}), "one that was never sealed passes"
    for harmed in ({**made, "a": 1.25}, {**made, "more": 1}, {key: made[key] for key in made if key != "n"}):
        assert is_damaged(harmed)
