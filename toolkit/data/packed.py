"""Files packed with gzip or zstandard, read as what is in them, and never more than a file can honestly hold."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

_PACKED_CHUNK = 1 << 10  # bytes of a .zst at a time: 4 of them can be 128 KiB of the file
_SMALL = 1 << 28  # bytes that any packed file may unpack to
_MOST_TIMES = 300  # its own size that a larger one may; text of chats is packed 5 to 100 times


class EndlessError(Exception):
    """What is made to fill memory."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """What is in a file, unpacked where its name says that it is packed.

    Reading raises EOFError where it is cut off, `EndlessError`, and what gzip, zlib and zstandard say of a broken one.
    """
    with path.open("rb") as raw:
        if path.suffix == ".gz":
            with gzip.open(raw) as stream:
                yield cast(IO[bytes], _Bounded(cast(io.RawIOBase, stream), raw))
        elif path.suffix == ".zst":
            yield cast(IO[bytes], _Bounded(_Zst(raw), raw))
        else:
            yield raw


class _Bounded(io.RawIOBase):
    """What a packed file holds, up to a number of times what was read of it."""

    def __init__(self, unpacked: io.RawIOBase, packed: IO[bytes]) -> None:
        self._unpacked, self._packed = unpacked, packed
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._unpacked.readinto(buffer) or 0
        self._count += count
        refuse_endless(self._count, self._packed.tell())
        return count


def refuse_endless(unpacked: int, packed: int) -> None:
    """Raise `EndlessError` where so many bytes came out of so few."""
    if unpacked > _SMALL and unpacked > _MOST_TIMES * packed:
        size = f"{unpacked // packed:,} times its size" if packed else "without end"
        raise EndlessError(f"unpacks to {size}, at most {_MOST_TIMES} is taken; unpack it yourself if that is right")


class _Zst(io.RawIOBase):
    """Decompressed zstandard. Unlike the library's own reader it complains when the file ends inside a frame."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = self._decompressor.decompressobj()
        self._started = False  # whether the frame has been given any bytes
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._started = self._decompressor.decompressobj(), False
            packed = packed or self._raw.read(_PACKED_CHUNK)
            if not packed:
                if self._started:
                    raise EOFError("the file ends in the middle of a frame")
                return 0
            self._started = True
            self._ready = memoryview(self._frame.decompress(packed))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
