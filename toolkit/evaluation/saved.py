"""The folder that a table is saved in: its files' names, and what may be written over."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from toolkit import jsons
from toolkit.errors import InputError
from toolkit.runs import RunFolder

TABLE = "table.json"
_MOST_NAMED = 3


def file_names(columns: Iterable[str]) -> list[str]:
    """NAME.jsonl for the name of each column: different ones, also where a disk takes capitals for small letters."""
    found: list[str] = []
    taken: set[str] = set()
    for name in columns:
        plain = re.sub(r"[^\w.+-]+", "-", name).strip("-") or "model"
        stem, number = plain, 2
        while stem.casefold() in taken:
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.casefold())
        found.append(f"{stem}.jsonl")
    return found


def earlier_files(folder: Path) -> set[str]:
    """The names of the files that a table saved in `folder` is made of; empty where there is none."""
    try:
        columns = jsons.loads((folder / TABLE).read_text(encoding="utf-8"))["columns"]
        return {TABLE, *file_names([str(column["name"]) for column in columns])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def check_folder(folder: Path) -> None:
    """Raise an `InputError` unless a table can be saved in `folder` without anything but an earlier one being lost."""
    place = folder.resolve()
    run = RunFolder(place.parent)
    if run.recipe.is_file() and place in (run.checkpoints, run.adapter, run.evaluation, run.export):
        raise InputError(f"--out {folder}: the run's own folder; name another, as {folder.parent / 'later'}")
    if not place.is_dir():
        return
    earlier = earlier_files(place)
    others = sorted(path.name for path in place.iterdir() if path.name not in earlier or not path.is_file())
    if others:
        more = f" and {len(others) - _MOST_NAMED:,} more" if len(others) > _MOST_NAMED else ""
        raise InputError(
            f"--out {folder}: holds {', '.join(others[:_MOST_NAMED])}{more}, which no earlier table wrote; "
            "name another folder"
        )
