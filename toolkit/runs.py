"""A run folder: what was asked, where it ran, what happened, what came out.

recipe.toml       as resolved, can be run again as it is
environment.json  versions, hardware, engine and why, hashes of data, template and token table
chat_template.jinja  what renders its chats, in training and after it
metrics.jsonl     one line an update or evaluation
checkpoints/      the trainer's own, for --resume
adapter/          PEFT's format
evaluation/       decoded held-out chats before and after, where the recipe asks for them
samples.json      a few chats token by token, with what is trained of them
tools.json        the tools that its chats had on offer, the most frequent first (`toolkit.data.seen`)
summary.json      the end
report.html       all of this as a page
export/           GGUF files, where the recipe asks for them
done.json         that all of this was made: what is not there any more was taken away
verification.json  what `toolkit verify` found the last time (`toolkit.training.verify`)
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import Problem, RecipeError, RunError, did_you_mean
from toolkit.files import clear_leftovers, leftovers, locked, unwritable, write_text
from toolkit.hashes import sha256_of
from toolkit.manifest import damage
from toolkit.recipe import load
from toolkit.recipe.dump import value_text
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object, read_rows
from toolkit.terminal import warn
from toolkit.words import typed

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
MOST_NAMED = 5  # runs of a folder that is named instead of one of them
# Settings that may differ between a run and its resumption: they change what is shown or kept, not what is learned.
FREE_ON_RESUME = {
    "train": {
        "fitted_steps",
        "logging_steps",
        "save_steps",
        "save_total_limit",
        "report_to",
        "torch_threads",
        "max_skipped_steps",
    },
    "eval": {"generate", "generate_steps", "max_new_tokens", "generate_batch_size", "per_device_eval_batch_size"},
    "data": {"num_proc"},
}


def default_folder(name: str, parent: Path = Path("runs")) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def beside(path: Path) -> str:
    """The name of the folder beside `path` that was most likely meant, as the end of a message; else nothing."""
    around = [place.name for place in path.parent.iterdir() if place.is_dir()] if path.parent.is_dir() else []
    return did_you_mean(path.name, around)


def holding(path: Path) -> str:
    """`, but it holds some: quickstart, mine` for a folder of runs, as the end of a message; else nothing."""
    inside = sorted(child.parent.name for child in path.glob("*/recipe.toml"))
    more = f" and {len(inside) - MOST_NAMED:,} more" if len(inside) > MOST_NAMED else ""
    return f", but it holds some: {', '.join(inside[:MOST_NAMED])}{more}" if inside else ""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def template(self) -> Path:
        return self.path / "chat_template.jinja"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def samples(self) -> Path:
        return self.path / "samples.json"

    @property
    def tools(self) -> Path:
        return self.path / "tools.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def done(self) -> Path:
        return self.path / "done.json"

    @property
    def verification(self) -> Path:
        return self.path / "verification.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """All single files of a run, but for its recipe."""
        return (
            *(self.environment, self.template, self.metrics, self.samples, self.tools, self.report, self.summary),
            *(self.verification, self.done, self.evaluation / "before.jsonl", self.evaluation / "after.jsonl"),
        )

    @property
    def mended(self) -> str:
        """What to do about a damaged file."""
        return f"make it again with: {self.resuming}"

    @property
    def resuming(self) -> str:
        """The command that goes on with this run, by its own recipe."""
        return typed("run", self.recipe, "--resume", self.path)

    @classmethod
    def require_free(cls, path: Path) -> None:
        """Raise `RunError` unless a run folder can be made at `path`: nothing there, its parent can be written."""
        if path.exists() and (not path.is_dir() or set(path.iterdir()) - set(leftovers(cls(path).recipe))):
            resumable = cls(path).recipe.is_file() and not cls(path).summary.is_file()
            advice = f", or go on with this run: --resume {path}" if resumable else ""
            raise RunError([Problem(str(path), f"exists already; name another with --out{advice}")])
        if why := unwritable(path):
            raise RunError(f"{path}: can't be made, {why}; name another folder with --out")

    @classmethod
    def create(cls, path: Path, recipe: str) -> RunFolder:
        """Make a new run folder that holds only recipe.toml. Raises `RunError` where something is there already.

        Of two processes that make the same folder, one gets it.
        """
        cls.require_free(path)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            clear_leftovers(run.recipe)  # of a process that was killed as it began
            write_text(run.recipe, recipe, durable=True, new=True)
        except FileExistsError:
            raise RunError(f"{path}: another run took this folder a moment ago; name another with --out") from None
        except OSError as error:
            raise RunError(f"{path}: can't be made: {error.strerror}; name another folder with --out") from None
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder. Raises `RunError` where there is none."""
        run = cls(path)
        if not run.recipe.is_file():
            if path.exists():
                raise RunError([Problem(str(path), f"not a run folder{holding(path) or ' (no recipe.toml in it)'}")])
            raise RunError(f"{path}: no such run folder{beside(path)}")
        return run

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in this folder. Raises `RunError` when one does already."""
        with locked(self.path) as mine:
            if not mine:
                raise RunError(f"{self.path}: another process is training in this folder")
            yield

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint; whether it is whole, `toolkit.training.checkpoints` says."""
        found = self.all_checkpoints()
        return found[-1] if found else None

    def all_checkpoints(self) -> list[Path]:
        """The folders of all checkpoints, the oldest first."""
        names = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in self.checkpoints.glob("checkpoint-*"))
        return [path for _, path in sorted((int(name[1]), path) for name, path in names if name and path.is_dir())]

    def cut_metrics(self, update: int) -> list[Problem]:
        """Drop metrics past `update`, which a resumed run writes again; returns the lines that could not be read."""
        bad: list[Problem] = []
        rows = [row for row in read_rows(self.metrics, bad) if row["update"] <= update]
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows), durable=True)
        return bad

    def adapter_damage(self) -> str | None:
        """What is wrong with adapter/, or None."""
        return adapter_damage(self.adapter)


def recipe_of(run: RunFolder) -> Recipe:
    """The recipe that a run was trained with. Says so on standard error where recipe.toml was changed since.

    Raises `RecipeError` with what mends it where it can't be read. Engines are not asked: one has trained it.
    """
    try:
        recipe = load(run.recipe).recipe
    except RecipeError as error:
        advice = Problem("", f"{run.recipe} is as no run wrote it; {run.mended}")
        raise RecipeError([*error.problems, advice]) from None
    with contextlib.suppress(RunError):  # who needs environment.json reads it for itself
        known = read_object(run.environment).get("recipe_sha256")
        if known and known != sha256_of(run.recipe):
            warn(f"note: {run.recipe} was changed since the run began")
    return recipe


def adapter_damage(folder: Path) -> str | None:
    """What is wrong with an adapter folder, as `adapter_model.safetensors: missing`, or None.

    One without a manifest (written before there were any, or by something else) has to have both files.
    """
    for name in ADAPTER:
        if not (folder / name).is_file():
            return f"{name}: missing"
    return damage(folder, only=ADAPTER)


def check_adapter(folder: Path, mended: str) -> None:
    """Raise `RunError` that names the file where an adapter is not what was written; `mended` says what to do."""
    if wrong := adapter_damage(folder):
        name, _, what = wrong.partition(": ")
        raise RunError(f"{folder / name}: {what}; {mended}")


def differences(mine: Recipe, theirs: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value, other value) for every setting that decides what is learned and is not the same."""
    found: list[tuple[str, Any, Any]] = []
    ours, others = mine.model_dump(mode="json"), theirs.model_dump(mode="json")
    for section, values in ours.items():
        if section == "export":
            continue
        for key, value in values.items():
            if key not in FREE_ON_RESUME.get(section, ()):
                found += _differing(f"{section}.{key}", value, others[section][key])
    return found


def _differing(key: str, mine: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs below a key, in lists of as many tables and in tables of the same keys; else the values whole."""
    if mine == other:
        return
    if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        parts: Iterable[Any] = range(len(mine)) if all(isinstance(one, dict) for one in (*mine, *other)) else ()
    else:
        parts = mine if isinstance(mine, dict) and isinstance(other, dict) and mine.keys() == other.keys() else ()
    if not parts:
        yield key, mine, other
    for part in parts:
        yield from _differing(f"{key}.{part}", mine[part], other[part])


def check_same(recipe: Recipe, where: str, saved: Recipe, run: RunFolder) -> None:
    """Raise `RunError` when a checkpoint was made by another recipe, with every key that differs."""
    problems = [
        Problem(where, f"{_said(key, value)}, but {run.path} was trained {_with(other)}")
        for key, value, other in differences(recipe, saved)
    ]
    if problems:
        raise RunError([*problems, Problem("", f"a run is resumed with its own recipe: {run.resuming}")])


def _said(key: str, value: Any) -> str:
    """A setting as a recipe says it."""
    return f"{key} = {value_text(value)}" if value is not None else f"{key} is not set"


def _with(value: Any) -> str:
    return f"with {value_text(value)}" if value is not None else "without it"


def command_line() -> str:
    """The command as the user typed it, quoted so that it can be pasted."""
    program = Path(sys.argv[0]).name
    started = "python -m toolkit" if program == "__main__.py" else shlex.quote(program)
    return f"{started} {shlex.join(sys.argv[1:])}".rstrip()
