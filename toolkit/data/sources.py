"""Chats from the places that a recipe names: built-in chats, local files and folders, data sets of the hub.

Everything is read once, in order, and passed on as it comes; nothing is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.chats import BUILTIN, BUILTIN_PREFIX, TEST_SET, Chat
from toolkit.data.columns import chosen, format_of, renamed
from toolkit.data.formats import convert
from toolkit.data.hub_files import hub_files
from toolkit.data.mending import strip_nulls
from toolkit.data.notes import Reading, Remarks, RowError
from toolkit.data.readers import KINDS, Aside, Placed, kind_of, read_rows
from toolkit.errors import DataError, Problem, did_you_mean
from toolkit.words import counted

if TYPE_CHECKING:
    from toolkit.recipe.schema import SourceSection

MOST_SHOWN = 20
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_FIXED_COLUMNS = (".csv", ".parquet")
_MANY = 5_000  # built-in chats that several processes make sooner than they start
_FEW_PROCESSES = 2  # are kept busy by what one process makes
_NO_ROW_FITS = ("no known format", "no column")  # said once, where every row has the same columns


def load_chats(specs: Sequence[SourceSection], reading: Reading | None = None, workers: int = 1) -> Iterator[Chat]:
    """The chats of all sources, one source after the other, each as often as its weight says.

    Bad rows are left out and, with what good rows said that was not used, noted in `reading`; it is for whoever reads
    to ask it for its verdict (`Reading.stop`). Without `reading` bad rows raise `DataError` once everything has been
    read. So does, in both cases, a source that is missing, unreadable or empty. `workers`: processes that make many
    built-in chats.
    """
    strict = reading is None
    reading = reading or Reading()
    for spec in specs:
        yield from _weighted(spec, reading, workers)
    if strict:
        reading.stop()


def shortened(problems: Sequence[Problem]) -> list[Problem]:
    """The first 20 problems and, where there are more, how many."""
    shown = list(problems[:MOST_SHOWN])
    if len(problems) > len(shown):
        shown.append(Problem("", f"and {len(problems) - len(shown):,} more"))
    return shown


def local_files(source: str) -> list[Path] | None:
    """The data files that a source means, or None when it isn't local. Raises `DataError` for what is missing."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and kind_of(file))
        if not files:
            raise DataError(f"{source}: no data files in this folder; wanted {', '.join(KINDS)}")
        return files
    if path.exists():
        if not path.is_file():
            what = "a named pipe" if path.is_fifo() else "no regular file"
            raise DataError(f"{source}: {what}; data is read more than once, so write it into a file and name that")
        return [path]
    if source.startswith(BUILTIN_PREFIX):
        return None
    if _HUB_ID.match(source) and not source.startswith(("./", "../")) and kind_of(path) is None:
        return None
    around = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{source}: no such file{did_you_mean(path.name, around)}")


def named_files(spec: SourceSection) -> dict[str, Path] | None:
    """The data files of a source by what they are called, which the recipe's name of the source says, wherever it is
    read; None when it isn't local. Raises `DataError` for what is missing."""
    files = local_files(spec.place)
    if files is None:
        return None
    named = Path(spec.source).expanduser()
    return (
        {str(named / path.name): path for path in files}
        if Path(spec.place).expanduser().is_dir()
        else {spec.source: files[0]}
    )


def _weighted(spec: SourceSection, reading: Reading, workers: int) -> Iterator[Chat]:
    """Chat number n is taken floor((n + 1) * weight) - floor(n * weight) times, until the limit is reached."""
    taken, read = 0, -1
    before = reading.rows
    for read, chat in enumerate(_chats(spec, reading, workers)):
        times = int((read + 1) * spec.weight) - int(read * spec.weight)
        for _ in range(times):
            yield chat
            taken += 1
            if spec.limit is not None and taken >= spec.limit:
                return
    if reading.rows == before:
        raise DataError(f"{spec.source}: empty, there is not one row in it")
    if not taken and read >= 0:
        raise DataError(f"{spec.source}: {none_taken(spec.weight, read + 1)}")


def none_taken(weight: float, chats: int) -> str:
    """What is said of a source that gives nothing for its weight."""
    least = math.ceil(1000 / chats) / 1000
    return f"weight = {weight:g} takes none of {counted(chats, 'chat')}; wanted {least:g} or more"


def _chats(spec: SourceSection, reading: Reading, workers: int) -> Iterator[Chat]:
    if spec.builtin:
        for chat in _builtin(spec, workers):
            reading.rows += 1
            yield chat
        return
    files = named_files(spec)
    if files is None:
        for name, path in hub_files(spec):
            yield from _of_file(path, spec, name, reading)
        return
    for name, path in files.items():
        yield from _of_file(path, spec, name, reading)


def _of_file(path: Path | Iterator[Placed], spec: SourceSection, name: str, reading: Reading) -> Iterator[Chat]:
    """The chats of a file, or of rows that something else has read."""
    if isinstance(path, Path):
        kind = kind_of(path)
        rows, fixed, arrow = read_rows(path), kind in _FIXED_COLUMNS, kind == ".parquet"
    else:
        rows, fixed, arrow = path, True, True
    yield from _converted(rows, spec, name, reading, fixed=fixed, arrow=arrow)


def _builtin(spec: SourceSection, workers: int) -> Iterator[Chat]:
    known = (BUILTIN, TEST_SET)
    if spec.source not in known:
        near = did_you_mean(spec.source, known) or f"; there are {' and '.join(known)}"
        raise DataError(f"{spec.source}: no such built-in chats{near}")
    from toolkit.world import chats

    yield from chats(
        size=spec.size,
        seed=spec.seed,
        split=spec.split,
        domains=spec.domains,
        kinds=spec.kinds,
        max_tools=spec.max_tools,
        test=spec.source == TEST_SET,
        decisions=spec.decisions,
        rationales=spec.rationales,
        purposes=spec.purposes,
        workers=workers if spec.size >= _MANY and workers > _FEW_PROCESSES else 1,
    )


def _converted(
    rows: Iterator[Placed], spec: SourceSection, name: str, reading: Reading, *, fixed: bool, arrow: bool
) -> Iterator[Chat]:
    """The rows of one file as chats. `fixed`: all rows have the same columns. `arrow`: nulls may mean nothing."""
    columns = chosen(spec.columns)
    format = format_of(columns) if columns and spec.format == "auto" else spec.format
    first = True
    for number, row in rows:
        where = f"{name}:{number}"
        if isinstance(row, Aside):
            reading.note(row.text, where)
            continue
        reading.rows += 1
        remarks = Remarks()
        try:
            if isinstance(row, RowError):
                raise row
            if arrow and (nulls := strip_nulls(row)).count:
                remarks["nulls of the file's columns and structs are read as absent"] += nulls.count
                row = nulls.value
            if columns:
                row = renamed(row, columns)
            chat = convert(row, format, where=where, source=spec.source, remarks=remarks)
        except RowError as error:
            if first and fixed and isinstance(row, dict) and error.cause.startswith(_NO_ROW_FITS):
                # Every row has these columns: one message, not one a row.
                raise DataError(Problem(name, str(error))) from error
            reading.refuse(Problem(where, str(error)), error.cause)
        else:
            for text, times in remarks.items():
                reading.note(text, where, times)
            yield chat
        first = False
