"""Checkpoints: what each carries, whether one is whole, and which one a run goes on from.

    checkpoint-N/   the trainer's own files: adapter, optimizer, scheduler, random states, trainer_state.json
      run.json           the run's recipe and environment, and what its callbacks had decided by then
      best.safetensors   the adapter that early stopping had kept by then, where it had
      manifest.json      size and SHA-256 of all of these, written last

So a whole checkpoint is all that going on takes: recipe.toml and environment.json are written again from it, and a line
of metrics.jsonl that is lost changes no decision. Imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.errors import RunError
from toolkit.files import flush, remove
from toolkit.manifest import damage, has_manifest, safetensors_damage, write_manifest
from toolkit.records import read_object, write_json
from toolkit.runs import ADAPTER, RunFolder

SAVED = "run.json"
BEST = "best.safetensors"
STATE = "trainer_state.json"
TORCH = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
PART = ".part"  # where a checkpoint is while it is written


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is whole. `saved` is its run.json, empty in those written before there was one; `note` is what
    could not be checked in them."""

    path: Path
    update: int
    saved: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def progress(self) -> dict[str, Any]:
        """What the callbacks had decided by then."""
        return dict(self.saved.get("progress") or {})


@contextlib.contextmanager
def writing(target: Path, carry: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Where the trainer puts a checkpoint, under its own name, that then becomes `target`: whole, or not at all.

    `carry` adds what is the run's. Yields the folder above.
    """
    work = target.parent / PART / target.name
    remove(work.parent)
    work.parent.mkdir(parents=True)
    try:
        yield work.parent
        if carry is not None:
            carry(work)
        write_manifest(work)
        remove(target)  # only what was not whole can be there
        work.rename(target)
        flush(target.parent)
    finally:
        remove(work.parent)


def carried(
    folder: RunFolder, recipe: Callable[[], str], progress: Callable[[], dict[str, Any]]
) -> Callable[[Path], None]:
    """Adds run.json and the best adapter so far to a checkpoint: `recipe` is the run's as TOML, `progress` what its
    callbacks have decided."""

    def carry(work: Path) -> None:
        best = folder.checkpoints / BEST
        if best.is_file():
            _link(best, work / BEST)
        environment = read_object(folder.environment)
        write_json(work / SAVED, {"recipe": recipe(), "environment": environment, "progress": progress()})

    return carry


def drop_old(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for path in RunFolder(folder.parent).all_checkpoints()[:-keep]:
        remove(path)


def bring_back_best(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Put the best adapter as of a checkpoint where early stopping keeps it; a later one goes."""
    if checkpoint is not None and not checkpoint.saved:
        return  # written before checkpoints carried it
    remove(folder.checkpoints / BEST)
    if checkpoint is not None and (checkpoint.path / BEST).is_file():
        _link(checkpoint.path / BEST, folder.checkpoints / BEST)


def newest_whole(
    folder: RunFolder, fits: Callable[[Checkpoint], str] | None = None
) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, and the newer ones with what is wrong with each.

    `fits` says what else stands in a checkpoint's way, or nothing.
    """
    passed: list[tuple[Path, str]] = []
    for path in reversed(folder.all_checkpoints()):
        try:
            found = read(path)
        except RunError as error:
            passed.append((path, str(error)))
            continue
        if fits is not None and (wrong := fits(found)):
            passed.append((path, wrong))
            continue
        return found, passed
    return None, passed


def read(path: Path) -> Checkpoint:
    """A checkpoint, if it is whole. Raises `RunError` with the file and what is wrong with it."""
    update = int(path.name.rpartition("-")[2])
    old = not has_manifest(path)
    wrong = damage(path) or _incomplete(path, update)
    if not wrong and old:
        wrong = _unreadable(path)
    if wrong:
        raise RunError(wrong)
    if not old:
        return Checkpoint(path, update, read_object(path / SAVED))
    return Checkpoint(path, update, note="has no manifest: only its structure was checked, not each byte")


def _incomplete(path: Path, update: int) -> str:
    """What a checkpoint lacks to go on from."""
    for name in (*ADAPTER, *TORCH, STATE):
        if not (path / name).is_file():
            return f"{name}: missing"
    try:
        at = jsons.loads((path / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE}: can't be read ({error})"
    return "" if at == update else f"{STATE}: of update {at}, not of {update}"


def _unreadable(path: Path) -> str:
    """The first file that can't be what its library wrote, for checkpoints without a manifest."""
    try:
        config = jsons.loads((path / ADAPTER[0]).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        return f"{ADAPTER[0]}: can't be read ({error})"
    if wrong := safetensors_damage(path / ADAPTER[1]):
        return f"{ADAPTER[1]}: {wrong}"
    for name in (*TORCH, "scaler.pt"):
        if (path / name).is_file() and (wrong := _torch_damage(path / name)):
            return f"{name}: {wrong}"
    return ""


def _torch_damage(path: Path) -> str:
    """What tells that a file is not as torch.save wrote it: a zip file, with a CRC for each of its records."""
    try:
        with path.open("rb") as file:
            file.seek(-22, os.SEEK_END)
            end = file.read()
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                bad = archive.testzip()
    except Exception as error:  # zipfile's own, zlib's, and more
        return f"cut short or changed ({error})"
    if not (end.startswith(b"PK\x05\x06") and end.endswith(b"\x00\x00")):
        return "more was added to it, or its end was changed"
    return f"changed since it was written ({bad} has another CRC)" if bad is not None else ""


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, where the file system knows such; neither is ever written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
