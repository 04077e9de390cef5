"""Rows out of files, one at a time: .jsonl, .json, .csv and .parquet, plain or inside .gz or .zst."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from toolkit.data.jsontext import LAX, STRICT, loads, not_json, refuse_halves
from toolkit.data.notes import RowError, shown
from toolkit.data.packed import EndlessError, opened, refuse_endless
from toolkit.errors import DataError, Problem

_A_LIST = "a JSON list begins here, and a row a line is wanted; name the file .json, which may hold a list"
_OVER_LINES = (
    "an object over several lines begins here, and a row a line is wanted; write one row a line, or name the file "
    ".json, which may hold such objects"
)
KINDS = (".jsonl", ".json", ".csv", ".parquet")
PACKED = (".gz", ".zst")
_CHUNK = 1 << 16
_MOST_ROW = 1 << 26  # bytes of a line, or characters of an item of a list: 64 MiB
_MOST_VALUE = 1 << 30  # characters of a JSON value that is a file of its own
_MOST_COLUMN = 2**31 - 1

# A row that holds such keys is one row, whatever lists of objects are in it.
_ROW_KEYS = {"messages", "conversations", "conversation", "prompt", "query", "instruction", "chat"}
_SPLITS = {"train", "training", "validation", "valid", "val", "dev", "eval", "test"}


@dataclass(frozen=True, slots=True)
class Aside:
    """Something that the file says beside its rows."""

    text: str


Placed = tuple[int | str, Any]
"""Line (or row) number from 1, where rows share a line with the column; and the row, or the `RowError` that it is."""


def kind_of(path: Path) -> str | None:
    """`.jsonl`, `.json`, `.csv` or `.parquet` by the file's name, None for any other file."""
    name = Path(path.stem) if path.suffix in PACKED else path
    suffix = {".ndjson": ".jsonl"}.get(name.suffix, name.suffix)
    return suffix if suffix in KINDS else None


def read_rows(path: Path) -> Iterator[Placed]:
    """Every row of a file with its place. Raises `DataError` when the file as a whole can't be read."""
    kind = kind_of(path)
    if kind is None:
        tabs = "; save a table with tabs as .csv, with commas" if path.suffix == ".tsv" else ""
        kinds = f"{', '.join(KINDS)}, plain or with {' or '.join(PACKED)}"
        raise DataError(f"{path}: unknown kind of file; wanted {kinds}{tabs}")
    reader = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}[kind]
    with _readable(path), opened(path) as binary:
        yield from reader(binary)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a broken file raises into one line."""
    import zstandard

    try:
        yield
    except EndlessError as error:
        raise DataError(f"{path}: {error}") from error
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise DataError(f"{path}: broken or cut off {path.suffix} file: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(Problem(f"{path}:{_first_line_not_utf8(path)}", _not_utf8(error))) from error
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error


_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how it begins


def _not_utf8(error: UnicodeDecodeError) -> str:
    head = bytes(error.object[:4])
    if head.startswith(_UTF16):
        return "not UTF-8 text but UTF-16; save it as UTF-8, as with iconv -f utf-16 -t utf-8"
    byte = error.object[error.start]
    return f"not UTF-8 text: byte 0x{byte:02x}; save it as UTF-8 (from Latin-1: iconv -f latin1 -t utf-8)"


def _first_line_not_utf8(path: Path) -> int:
    with opened(path) as binary:
        for number, raw in enumerate(_lines(io.BufferedReader(cast(Any, binary))), 1):
            try:
                (raw or b"").decode()
            except UnicodeDecodeError:
                return number
    return 1


def _jsonl(binary: IO[bytes]) -> Iterator[Placed]:
    first = True
    buffered = io.BufferedReader(cast(Any, binary), _CHUNK)
    for number, raw in enumerate(_lines(buffered), 1):
        if raw is None:
            yield number, RowError(f"a line of more than {_MOST_ROW >> 20} MiB", cause="a line that is too long")
            continue
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, RowError(_not_utf8(error), cause="not UTF-8 text")
            if number == 1 and raw.startswith(_UTF16):
                return  # none of its lines is one of UTF-8
            continue
        if line.strip():
            try:
                value = loads(line)
            except RowError as error:
                value = error
            if first and line.lstrip().startswith("["):
                yield number, RowError(_A_LIST, cause="a JSON list in a file of lines")
                return
            if first and isinstance(value, RowError) and _goes_on(line, buffered.peek()):
                yield number, RowError(_OVER_LINES, cause="objects over several lines in a file of lines")
                return
            yield number, value
            first = False


def _goes_on(line: str, following: bytes) -> bool:
    """Whether an object begins in a line and ends in one of those that follow, as far as they are here."""
    text = line.lstrip()
    length = len(text)
    try:
        _, stop = LAX.raw_decode(text + following.decode("utf-8", "ignore"))
    except (ValueError, RecursionError):
        return False
    return stop > length


def _lines(binary: io.BufferedReader) -> Iterator[bytes | None]:
    """Each line, None for one that is too long."""
    while line := binary.readline(_MOST_ROW):
        whole = len(line) < _MOST_ROW or line.endswith(b"\n")
        yield line if whole else None
        while not whole:
            rest = binary.readline(_CHUNK)
            whole = not rest or rest.endswith(b"\n")


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
        lists = [key for key, inner in value.items() if _is_list_of_rows(inner)]
        if len(lists) > 1 and _SPLITS.issuperset(map(str.lower, lists)) and not _ROW_KEYS & set(value):
            names = ", ".join(lists)
            message = f"splits within one file: {names}; wanted a file for each, named in data.sources and eval.sources"
            yield 1, RowError(message, cause="splits within one file")
            return
        if len(lists) == 1 and not _ROW_KEYS & set(value):
            for key in value:
                if key != lists[0]:
                    yield 1, Aside(f"the file: key {shown(key)}, beside {shown(lists[0])}, is not used")
            yield from enumerate(value[lists[0]], 1)
            return
    yield first
    if second is not None:
        yield second
    yield from values


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _json_values(text: IO[str]) -> Iterator[Placed]:
    buffer, line, wanted = "", 1, _CHUNK
    column, last = 1, 0  # of the buffer's first character, and the line that the last value began on
    in_list: bool | None = None  # None until the first character tells
    ended = False

    def passed(count: int) -> None:
        nonlocal buffer, line, column
        gone, buffer = buffer[:count], buffer[count:]
        breaks = gone.count("\n")
        line += breaks
        column = len(gone) - gone.rfind("\n") if breaks else column + len(gone)

    def place() -> int | str:
        """The line, and the column where a value began on it already: some files are one line."""
        nonlocal last
        again, last = line == last, line
        return f"{line}:{column}" if again else line

    while True:
        passed(len(buffer) - len(buffer.lstrip()))
        if buffer and in_list is None:
            in_list = buffer[0] == "["
            passed(int(in_list))
            continue
        if in_list and buffer[:1] == ",":
            passed(1)
            continue
        if in_list and buffer[:1] == "]":
            return
        if buffer:
            try:
                value, stop = _decoded(buffer)
            except (ValueError, RecursionError) as error:
                if ended:
                    yield place(), RowError(f"not JSON from here on: {_reason(error)}", cause="not JSON from here on")
                    return
            else:
                if stop < len(buffer) or ended:  # else a number could go on in the next piece
                    yield place(), value
                    passed(stop)
                    wanted = _CHUNK
                    continue
        if ended:
            if in_list:
                yield place(), RowError("not JSON: the list has no end")
            return
        if len(buffer) > (most := _MOST_ROW if in_list else _MOST_VALUE):
            many = f"{most >> 20:,} million characters"
            yield (
                place(),
                RowError(
                    f"a value of more than {many}; write a row a line, as .jsonl", cause="a value that is too long"
                ),
            )
            return
        more = text.read(wanted)
        ended, buffer, wanted = not more, buffer + more, wanted * 2


def _decoded(buffer: str) -> tuple[Any, int]:
    """The value that the buffer begins with, or the `RowError` that it is, and where it ends.

    Raises `ValueError` where it does not end yet, or is nothing that has an end.
    """
    try:
        value, stop = STRICT.raw_decode(buffer)
    except (ValueError, RecursionError) as error:
        _, stop = LAX.raw_decode(buffer)
        return not_json(error), stop  # what Python's own reader takes has an end: the next value can be read
    try:
        refuse_halves(value)
    except RowError as error:
        return error, stop
    return value, stop


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _csv(binary: IO[bytes]) -> Iterator[Placed]:
    csv.field_size_limit(_MOST_COLUMN)
    reader = csv.reader(_text(binary, newline=""), strict=True)
    header = next(reader, None)
    if header is None:
        return
    _refuse_header(header)
    line = reader.line_num + 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, RowError(f"broken CSV: {error}", cause="broken CSV")
            line = reader.line_num + 1
            continue
        if cells is None:
            return
        if len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            found = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            yield line, RowError(f"{found}, but the header has {len(header)} columns", cause="a row of other cells")
        line = reader.line_num + 1


def _refuse_header(header: list[str]) -> None:
    """A header of one column that another separator parts is no header."""
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
    if other:
        name = {"\t": "tabs"}.get(other, f'"{other}"')
        raise csv.Error(f"columns are parted by {name}; wanted commas: save it as CSV with commas, or as .jsonl")
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise csv.Error(f"two columns are called {shown(twice)}; wanted a name for each")


def _parquet(binary: IO[bytes]) -> Iterator[Placed]:
    import pyarrow
    import pyarrow.parquet

    with tempfile.TemporaryFile() as copy:
        if not isinstance(binary, io.BufferedReader):
            shutil.copyfileobj(binary, copy)  # parquet is read from its end, which a packed stream can't be
            binary = copy
        try:
            number, file = 0, pyarrow.parquet.ParquetFile(binary)
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            columns = [group.column(index) for group in groups for index in range(group.num_columns)]
            refuse_endless(
                sum(column.total_uncompressed_size for column in columns),
                sum(column.total_compressed_size for column in columns),
            )
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except pyarrow.ArrowException as error:
            raise OSError(f"broken parquet: {error}") from error


def _text(binary: IO[bytes], newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(cast(Any, binary)), encoding="utf-8-sig", newline=newline)
