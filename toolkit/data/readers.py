"""Rows out of files, one at a time: .jsonl, .json, .csv and .parquet, plain or inside .gz or .zst."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from toolkit.data.schemas import RowError, strip_nulls
from toolkit.errors import DataError

KINDS = (".jsonl", ".json", ".csv", ".parquet")
PACKED = (".gz", ".zst")
_CHUNK = 1 << 16
_MOST_COLUMN = 2**31 - 1

Placed = tuple[int, Any]  # line (or row) number from 1, and the row or the RowError that it is


def kind_of(path: Path) -> str | None:
    """`.jsonl`, `.json`, `.csv` or `.parquet` by the file's name, None for any other file."""
    name = Path(path.stem) if path.suffix in PACKED else path
    suffix = {".ndjson": ".jsonl"}.get(name.suffix, name.suffix)
    return suffix if suffix in KINDS else None


def read_rows(path: Path) -> Iterator[Placed]:
    """Every row of a file with its place. Raises `DataError` when the file as a whole can't be read."""
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path}: unknown kind of file; wanted {', '.join(KINDS)}, plain or with {' or '.join(PACKED)}")
    reader = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}[kind]
    with _readable(path), _opened(path) as binary:
        yield from reader(binary)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a broken file raises into one line."""
    import zstandard

    try:
        yield
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise DataError(f"{path}: broken or cut off {path.suffix} file: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error
    except csv.Error as error:
        raise DataError(f"{path}: broken CSV: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        if path.suffix == ".gz":
            with gzip.open(raw) as stream:
                yield cast(IO[bytes], stream)
        elif path.suffix == ".zst":
            yield cast(IO[bytes], _Zst(raw))
        else:
            yield raw


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
            packed = packed or self._raw.read(_CHUNK)
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


def _jsonl(binary: IO[bytes]) -> Iterator[Placed]:
    for number, line in enumerate(_text(binary), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, RowError(f"not JSON: {error}")


def _json(binary: IO[bytes]) -> Iterator[Placed]:
    """The items of a JSON list, or JSON values that follow each other; read in pieces, never the whole file at once.

    A single object with one list of objects inside, as {"data": [...]}, stands for that list.
    """
    values = _json_values(_text(binary))
    first = next(values, None)
    if first is None:
        return
    second = next(values, None)
    value = first[1]
    if second is None and isinstance(value, dict):
        lists = [inner for inner in value.values() if _is_list_of_rows(inner)]
        if len(lists) == 1 and not {"messages", "conversations", "prompt", "query", "instruction"} & set(value):
            yield from enumerate(lists[0], 1)
            return
    yield first
    if second is not None:
        yield second
    yield from values


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _json_values(text: IO[str]) -> Iterator[Placed]:
    decoder = json.JSONDecoder()
    buffer, line, wanted = "", 1, _CHUNK
    in_list: bool | None = None  # None until the first character tells
    ended = False
    while True:
        rest = buffer.lstrip()
        line += buffer[: len(buffer) - len(rest)].count("\n")
        buffer = rest
        if buffer and in_list is None:
            in_list = buffer[0] == "["
            buffer = buffer[1:] if in_list else buffer
            continue
        if in_list and buffer[:1] == ",":
            buffer = buffer[1:]
            continue
        if in_list and buffer[:1] == "]":
            return
        if buffer:
            try:
                value, stop = decoder.raw_decode(buffer)
            except (ValueError, RecursionError) as error:
                if ended:
                    yield line, RowError(f"not JSON from here on: {error}")
                    return
            else:
                if stop < len(buffer) or ended:  # else a number could go on in the next piece
                    yield line, value
                    line += buffer[:stop].count("\n")
                    buffer, wanted = buffer[stop:], _CHUNK
                    continue
        if ended:
            if in_list:
                yield line, RowError("not JSON: the list has no end")
            return
        more = text.read(wanted)
        ended, buffer, wanted = not more, buffer + more, wanted * 2


def _csv(binary: IO[bytes]) -> Iterator[Placed]:
    csv.field_size_limit(_MOST_COLUMN)
    reader = csv.DictReader(_text(binary, newline=""), strict=True)
    for row in reader:
        if None in row:
            yield reader.line_num, RowError(f"more cells than the {len(reader.fieldnames or ())} columns of the header")
        else:
            yield reader.line_num, {key: value or "" for key, value in row.items()}


def _parquet(binary: IO[bytes]) -> Iterator[Placed]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as copy:
        if not isinstance(binary, io.BufferedReader):
            shutil.copyfileobj(binary, copy)  # parquet is read from its end, which a packed stream can't be
            binary = copy
        try:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(binary).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, strip_nulls(row)
        except pyarrow.ArrowException as error:
            raise OSError(f"broken parquet: {error}") from error


def _text(binary: IO[bytes], newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(cast(Any, binary)), encoding="utf-8-sig", newline=newline)
