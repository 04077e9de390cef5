"""`toolkit runs`: the run folders below a folder, one line each."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from toolkit.engines.recipes import load
from toolkit.errors import InputError, RunError, first_line
from toolkit.files import leftovers
from toolkit.machine import is_short
from toolkit.recipe import dump
from toolkit.records import read_object, read_rows
from toolkit.reports.log import Log
from toolkit.reports.runview import facts_of, state_of
from toolkit.reports.sections import size
from toolkit.runs import RunFolder
from toolkit.words import typed

if TYPE_CHECKING:
    from rich.console import Console

NARROW = ("run", "model", "state", "updates", "eval", "right")  # what a terminal of 80 columns has room for


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a line. recipe: the name of its file, where the run says it; model: the last part of its name;
    accuracy: (before, after) shares of right answers; size: bytes on disk; problem: why the run can't be read; the rest
    is empty then."""

    path: Path
    recipe: str = ""
    model: str = ""
    state: str = ""
    updates: int = 0
    planned: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    accuracy: tuple[float | None, float | None] = (None, None)
    size: int = 0
    modified: float = 0.0
    problem: str = ""


def list_runs(folder: Path) -> list[Listed]:
    """All runs at or below `folder`, the oldest first. Raises `RunError` where there is no such folder."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; `{typed('run')}` makes runs/ where it is started")
    found = sorted({path.parent for path in folder.rglob("recipe.toml") if _is_run(path.parent)})
    return sorted((_listed(path) for path in found), key=lambda run: run.modified)


def _is_run(path: Path) -> bool:
    """Whether a run made this folder: a recipe alone may be a user's own."""
    folder = RunFolder(path)
    return any(file.exists() for file in (folder.environment, folder.metrics, folder.summary)) or _barely_made(folder)


def _barely_made(folder: RunFolder) -> bool:
    """Whether there is only what a run writes first: its recipe, with every key as nobody else writes them, perhaps its
    chat template. A job's folder has such a recipe among files of its own."""
    first = {folder.recipe, folder.template, *leftovers(folder.template), *leftovers(folder.environment)}
    if set(folder.path.iterdir()) - first:
        return False
    try:
        written, whole = folder.recipe.read_text(encoding="utf-8"), dump(load(folder.recipe).recipe)
    except (InputError, OSError, ValueError):
        return False
    keys, wanted = ([line.partition(" = ")[0] for line in text.splitlines()] for text in (written, whole))
    return keys == wanted


def _listed(path: Path) -> Listed:
    folder = RunFolder(path)
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    used, modified = sum(stat.st_size for stat in files), max((stat.st_mtime for stat in files), default=0.0)
    try:
        recipe = load(folder.recipe).recipe
        environment, summary = read_object(folder.environment), read_object(folder.summary)
        log = Log()
        for row in read_rows(folder.metrics):
            log.add(row)
        losses = [loss for loss in log.losses if math.isfinite(loss)]
        return Listed(
            path=path,
            recipe=_recipe_name(environment),
            model=Path(recipe.model.name.removeprefix("pypi:")).name,
            state=state_of(folder),
            updates=log.last_update,
            planned=facts_of(recipe, environment, summary).total,
            loss=losses[-1] if losses else None,
            eval_loss=log.evaluations[-1].loss if log.evaluations else None,
            accuracy=(_share(summary.get("calls_before")), _share(summary.get("calls_after"))),
            size=used,
            modified=modified,
        )
    except InputError as error:
        return Listed(path, size=used, modified=modified, problem=first_line(error))
    except Exception as error:  # of whatever stands in its files: one bad run must not hide the others
        if is_short(error):
            raise
        told = f"its files are not as a run writes them ({type(error).__name__}: {first_line(error)})"
        return Listed(path, size=used, modified=modified, problem=told)


def _recipe_name(environment: dict[str, Any]) -> str:
    """Of the recipe file on the command line that made the run."""
    command = str(environment.get("command") or "")
    try:
        words = shlex.split(command)
    except ValueError:  # of a run whose command was written down without quotes
        words = command.split()
    return next((Path(word).stem for word in words if word.endswith(".toml")), "")


def _share(calls: Any) -> float | None:
    """The share of right answers in a summary's calls."""
    try:
        return float(calls["overall"]["correct"]["share"])
    except (KeyError, TypeError):
        return None


def show_runs(folder: Path, console: Console) -> None:
    """Print the runs below `folder` as a table."""
    runs = list_runs(folder)
    if not runs:
        console.print(f"no runs in {folder}; `{typed('run', 'recipes/quickstart.toml')}` makes one", markup=False)
        return
    console.print(_table(folder, runs, console.width))
    for run in runs:
        if run.problem:
            console.print(f"{run.path}: {run.problem}", soft_wrap=True)


def _table(folder: Path, runs: list[Listed], width: int) -> Table:
    names = ["run", "recipe", "model", "state", "updates", "loss", "eval", "right", "size"]
    rows = [_cells(folder, run) for run in runs]

    def wide() -> bool:
        cells = [max(len(name), *(len(row.get(name, "")) for row in rows)) for name in names]
        return sum(cells) + 2 * (len(cells) - 1) > width

    for least in (name for name in names.copy() if name not in NARROW):
        if wide():
            names.remove(least)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in names:
        words = name in ("run", "recipe", "model")
        # a name is broken only where all that may break is broken
        table.add_column(
            name, overflow="fold", no_wrap=not words, justify="left" if words or name == "state" else "right"
        )
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table


def _cells(folder: Path, run: Listed) -> dict[str, str]:
    name = str(run.path.relative_to(folder)) if run.path != folder else run.path.resolve().name
    if run.problem:
        return {"run": name, "state": "can't be read"}
    before, after = run.accuracy
    return {
        "run": name,
        "recipe": run.recipe,
        "model": run.model,
        "state": run.state,
        "updates": f"{run.updates:,}" + (f"/{run.planned:,}" if run.planned and run.planned != run.updates else ""),
        "loss": "" if run.loss is None else f"{run.loss:.3f}",
        "eval": "" if run.eval_loss is None else f"{run.eval_loss:.3f}",
        "right": "" if after is None else (f"{before:.0%} to {after:.0%}" if before is not None else f"{after:.0%}"),
        "size": size(run.size),
    }
