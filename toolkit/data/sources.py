"""Chats from the places that a recipe names: built-in chats, local files and folders, data sets of the hub.

Everything is read once, in order, and passed on as it comes; nothing is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.chats import Chat
from toolkit.data.formats import convert
from toolkit.data.readers import KINDS, PACKED, Placed, kind_of, read_rows
from toolkit.data.schemas import RowError, strip_nulls
from toolkit.errors import DataError, Problem, did_you_mean

if TYPE_CHECKING:
    from toolkit.recipe.schema import SourceSection

BUILTIN = "builtin:tools"
MOST_SHOWN = 20
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_FIXED_COLUMNS = (".csv", ".parquet")


def load_chats(specs: Sequence[SourceSection], bad: list[Problem] | None = None) -> Iterator[Chat]:
    """The chats of all sources, one source after the other, each as often as its weight says.

    Bad rows are added to `bad` and left out. Without `bad` they raise `DataError` once their source has been read to
    the end, with the first 20 of them; so does, in both cases, a source that is missing, unreadable or empty.
    """
    for spec in specs:
        found: list[Problem] = []
        problems = 0
        for item in _weighted(spec):
            if isinstance(item, Chat):
                if not problems or bad is not None:
                    yield item
                continue
            problems += 1
            if bad is not None:
                bad.append(item)
            elif problems <= MOST_SHOWN:
                found.append(item)
        if found:
            raise DataError(shortened(found, problems))


def shortened(problems: Sequence[Problem], total: int | None = None) -> list[Problem]:
    """The first 20 problems and, where there are more, how many."""
    total = len(problems) if total is None else total
    shown = list(problems[:MOST_SHOWN])
    if total > len(shown):
        shown.append(Problem("", f"and {total - len(shown):,} more"))
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
        return [path]
    if source.startswith("builtin:"):
        return None
    if _HUB_ID.match(source) and not source.startswith(("./", "../")) and kind_of(path) is None:
        return None
    around = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{source}: no such file{did_you_mean(path.name, around)}")


def _weighted(spec: SourceSection) -> Iterator[Chat | Problem]:
    """Chat number n is taken floor((n + 1) * weight) - floor(n * weight) times, until the limit is reached."""
    read = taken = rows = 0
    for item in _items(spec):
        rows += 1
        if isinstance(item, Problem):
            yield item
            continue
        times = int((read + 1) * spec.weight) - int(read * spec.weight)
        read += 1
        for _ in range(times):
            yield item
            taken += 1
            if spec.limit is not None and taken >= spec.limit:
                return
    if not rows:
        raise DataError(f"{spec.source}: empty, there is not one row in it")


def _items(spec: SourceSection) -> Iterator[Chat | Problem]:
    if spec.source.startswith("builtin:"):
        yield from _builtin(spec)
        return
    files = local_files(spec.source)
    if files is None:
        yield from _converted(_hub_rows(spec), spec, f"{spec.source}:{spec.split}", fixed=True)
        return
    for path in files:
        name = str(path) if str(path) != str(Path(spec.source).expanduser()) else spec.source
        yield from _converted(read_rows(path), spec, name, fixed=kind_of(path) in _FIXED_COLUMNS)


def _builtin(spec: SourceSection) -> Iterator[Chat]:
    if spec.source != BUILTIN:
        raise DataError(f"{spec.source}: no such built-in chats{did_you_mean(spec.source, [BUILTIN])}")
    from toolkit.data.builtin import chats

    yield from chats(
        size=spec.size,
        seed=spec.seed,
        split=spec.split,
        domains=spec.domains,
        kinds=spec.kinds,
        max_tools=spec.max_tools,
    )


def _converted(rows: Iterator[Placed], spec: SourceSection, name: str, *, fixed: bool) -> Iterator[Chat | Problem]:
    first = True
    for number, row in rows:
        where = f"{name}:{number}"
        try:
            if isinstance(row, RowError):
                raise row
            yield convert(row, spec.format, where=where, source=spec.source)
        except RowError as error:
            if first and fixed and isinstance(row, dict) and "no known format" in str(error):
                # Every row has these columns: one message, not one a row.
                raise DataError(Problem(name, str(error))) from error
            yield Problem(where, str(error))
        first = False


def _hub_rows(spec: SourceSection) -> Iterator[Placed]:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    try:
        rows: Any = datasets.load_dataset(spec.source, split=spec.split, revision=spec.revision)
    except Exception as error:  # the hub client raises a dozen unrelated types, all of which mean that there is no data
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{spec.source}: the data set can't be loaded from the hub: {reason}. It needs network and the right name, "
            f'split ("{spec.split}") and revision; without network give a local {" or ".join(KINDS)} file '
            f"(plain, {' or '.join(PACKED)}) or {BUILTIN}"
        ) from error
    for number, row in enumerate(rows, 1):
        yield number, strip_nulls(row)
