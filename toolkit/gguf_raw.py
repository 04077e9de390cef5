"""A GGUF's parts without its words: keys as raw bytes, tensors as places in the file.

The `gguf` package reads every token of the vocabulary into an object, which takes seconds, and keeps the file mapped,
so that all of it counts as this process's memory. Quantising needs neither: keys are copied as they are.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from toolkit.errors import ModelError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
ALIGNMENT_KEY = "general.alignment"
MOST_KEYS, MOST_TENSORS, LONGEST_NAME = 10_000, 200_000, 65_535
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _CODES.items()}


Info = tuple[str, tuple[int, ...], int, int]
"""A tensor that will be written: name, shape as numpy has it, ggml type, bytes."""


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor's name, shape as numpy has it, ggml type, and where its bytes begin in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class RawGguf:
    """`keys` are a file's key-values, each as its bytes; `tensors` in the file's order."""

    path: Path
    keys: dict[str, bytes]
    tensors: tuple[RawTensor, ...]

    def text(self, key: str) -> str:
        """A string value."""
        start = 8 + len(key.encode()) + 4
        return self.keys[key][start + 8 :].decode()

    def number(self, key: str) -> int:
        """A uint32 value."""
        return int(struct.unpack("<I", self.keys[key][-4:])[0])

    def value(self, key: str) -> Any:
        """Any value: a number, a truth value, a string, or a list of them. None where there is no such key."""
        raw = self.keys.get(key)
        return None if raw is None else _value(raw, 8 + len(key.encode()))


def read_raw(path: Path) -> RawGguf:
    """The header of a little-endian GGUF of version 3: whole, and nothing in it longer than the file.

    Raises `ModelError` for anything else, with the key or tensor that is wrong.
    """
    at = [""]
    try:
        return _read_raw(path, at)
    except ModelError:
        raise
    except (struct.error, KeyError, ValueError, OverflowError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place that no file has
            raise
        why = "cut short" if isinstance(error, struct.error) else "broken"
        where = f" at {at[0][:80]}" if at[0] else ""
        raise ModelError(f"{path}: not a readable GGUF (its header is {why}{where})") from None


def _read_raw(path: Path, at: list[str]) -> RawGguf:
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, version, tensor_count, key_count = struct.unpack("<4sIQQ", file.read(24))
        if magic != MAGIC or version != VERSION:
            raise ModelError(f"{path}: not a GGUF file of version {VERSION}")
        for count, most, what in ((key_count, MOST_KEYS, "keys"), (tensor_count, MOST_TENSORS, "tensors")):
            if count > most:
                raise ModelError(f"{path}: not a readable GGUF ({count:,} {what}; at most {most:,} are read)")
        keys: dict[str, bytes] = {}
        for _ in range(key_count):
            start = file.tell()
            key = at[0] = _string(file)
            _skip_value(file)
            end = file.tell()
            if end > size:
                raise ModelError(f"{path}: not a readable GGUF ({key[:80]} is longer than the file)")
            if key in keys:
                raise ModelError(f"{path}: not a readable GGUF ({key[:80]} stands in it twice)")
            file.seek(start)
            keys[key] = file.read(end - start)
        infos = []
        for _ in range(tensor_count):
            name = at[0] = _string(file)
            dimensions = struct.unpack("<I", file.read(4))[0]
            if not 1 <= dimensions <= 4:
                raise ModelError(f"{path}: not a readable GGUF ({name} has {dimensions} dimensions)")
            shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
            kind, offset = struct.unpack("<IQ", file.read(12))
            infos.append((name, tuple(reversed(shape)), kind, offset))
        at[0] = ALIGNMENT_KEY
        data = _padded(file.tell(), _alignment(path, keys))
    return RawGguf(path, keys, tuple(RawTensor(n, shape, kind, data + offset) for n, shape, kind, offset in infos))


def uint32_key(key: str, value: int) -> bytes:
    """A key with a uint32 value, as it stands in a file."""
    name = key.encode()
    return struct.pack("<Q", len(name)) + name + struct.pack("<II", _UINT32, value)


def write_header(file: BinaryIO, keys: dict[str, bytes], tensors: Sequence[Info]) -> None:
    """Everything before the data: the keys, and what follows in which order."""
    file.write(struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), len(keys)))
    for raw in keys.values():
        file.write(raw)
    offset = 0
    for name, shape, kind, size in tensors:
        text = name.encode()
        file.write(struct.pack("<Q", len(text)) + text + struct.pack("<I", len(shape)))
        file.write(struct.pack(f"<{len(shape)}QIQ", *reversed(shape), kind, offset))
        offset += _padded(size)
    pad(file)


def pad(file: BinaryIO) -> None:
    """Fill up to where the next tensor may begin."""
    file.write(b"\0" * (_padded(file.tell()) - file.tell()))


def read_bytes(file: BinaryIO, offset: int, count: int) -> npt.NDArray[np.uint8]:
    """`count` bytes from `offset`."""
    file.seek(offset)
    return np.fromfile(file, dtype=np.uint8, count=count)


def _padded(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def _alignment(path: Path, keys: dict[str, bytes]) -> int:
    raw = keys.get(ALIGNMENT_KEY)
    found = ALIGNMENT if raw is None else _value(raw, 8 + len(ALIGNMENT_KEY))
    if not isinstance(found, int) or not 8 <= found <= 2**20 or found & (found - 1):
        raise ModelError(f"{path}: not a readable GGUF ({ALIGNMENT_KEY} = {str(found)[:20]}, wanted a power of two)")
    return found


def _string(file: BinaryIO) -> str:
    """A name, of a key or a tensor."""
    length = struct.unpack("<Q", file.read(8))[0]
    if length > LONGEST_NAME:
        raise OverflowError
    text = file.read(length)
    if len(text) < length:
        raise struct.error
    return text.decode()


def _value(raw: bytes, at: int) -> Any:
    (kind,) = struct.unpack_from("<I", raw, at)
    at += 4
    if kind == _STRING:
        return _text(raw, at)[0]
    if kind != _ARRAY:
        return struct.unpack_from(f"<{_CODES[kind]}", raw, at)[0]
    inner, count = struct.unpack_from("<IQ", raw, at)
    at += 12
    if inner != _STRING:
        return list(struct.unpack_from(f"<{count}{_CODES[inner]}", raw, at))
    found = []
    for _ in range(count):
        text, at = _text(raw, at)
        found.append(text)
    return found


def _text(raw: bytes, at: int) -> tuple[str, int]:
    start = at + 8
    end = start + int(struct.unpack_from("<Q", raw, at)[0])
    return raw[start:end].decode(), end


def _skip_value(file: BinaryIO) -> None:
    kind = struct.unpack("<I", file.read(4))[0]
    if kind == _STRING:
        file.seek(struct.unpack("<Q", file.read(8))[0], 1)
    elif kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner != _STRING:
            file.seek(_SIZES[inner] * count, 1)
            return
        for _ in range(count):
            file.seek(struct.unpack("<Q", file.read(8))[0], 1)
    else:
        file.seek(_SIZES[kind], 1)
