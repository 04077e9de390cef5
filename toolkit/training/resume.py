"""`--resume`: what of a run folder is whole, what is mended from a checkpoint, and what is left to do.

Nothing is guessed: a run goes on from a checkpoint that is whole, byte for byte as it was written, and each file that
is passed over or written again is said in a line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.data.pinning import named_as, pinned_as
from toolkit.engines.recipes import load
from toolkit.errors import InputError, Problem, RecipeError, RunError
from toolkit.evaluation.best import best_by_log
from toolkit.evaluation.results import Evaluation
from toolkit.files import clear_leftovers, remove, set_aside, write_text
from toolkit.hashes import sha256_of_text
from toolkit.manifest import safetensors_damage
from toolkit.recipe import LoadedRecipe, dump
from toolkit.recipe.places import Known
from toolkit.recipe.schema import Recipe
from toolkit.recipe.validate import validate
from toolkit.records import read_list, read_object, read_rows, write_json
from toolkit.runs import RunFolder, check_same, differences
from toolkit.training.checkpoints import (
    BEST,
    PART,
    Checkpoint,
    bring_back_best,
    newest_whole,
)
from toolkit.words import typed

Say = Callable[[str], None]


@dataclass(slots=True)
class Resumed:
    """A run that is taken up again.

    checkpoint: what it goes on from, None for the start. trained: adapter, evaluation and summary are there and whole,
    so that only report and export can be missing. environment: what was written when it began. recipe: as given, with
    the number of updates that the run was fitted to and the commits of its data. passed: newer checkpoints, and what is
    wrong with each.
    """

    checkpoint: Checkpoint | None
    trained: bool
    environment: dict[str, Any]
    recipe: Recipe
    passed: list[tuple[Path, str]] = field(default_factory=list)

    def begin(self, folder: RunFolder) -> list[Problem]:
        """Clear away what the next stretch of training makes anew; returns lines of metrics.jsonl that were lost.

        Checkpoints that are not whole are kept under another name.
        """
        for path, _ in self.passed:
            set_aside(path)
        for path in (folder.done, folder.summary):
            remove(path)
        bring_back_best(folder, self.checkpoint)
        return folder.cut_metrics(self.checkpoint.update if self.checkpoint is not None else -1)


def take_up(loaded: LoadedRecipe, folder: RunFolder, say: Say) -> Resumed:
    """Look at a run that is held by this process, mend what can be, and say where it goes on.

    Raises `RunError` for another recipe's run, and where going on would lose what can't be made again.
    """
    for path in (folder.recipe, *folder.files):
        clear_leftovers(path)
        if path.is_dir() and path != folder.recipe:
            set_aside(path)
            say(f"{path}: a folder in the place of a file is kept as damaged-{path.name}")
    remove(folder.checkpoints / PART)
    remove(folder.checkpoints / f"{BEST}.part")
    checkpoint, passed = _newest(folder, loaded.recipe)
    saved = checkpoint.saved if checkpoint is not None else {}
    environment = _environment(folder, checkpoint, say)
    began = _as_begun(saved.get("recipe"), environment, loaded.recipe)
    _mend_recipe(folder, began, say)
    given, trained_with = _own(loaded, folder, began)
    fitted = trained_with.train.fitted_steps or load(folder.recipe).recipe.train.fitted_steps
    train = given.train.model_copy(update={"fitted_steps": fitted})
    recipe = given.model_copy(update={"train": train})

    wrong = _unfinished(folder)
    resumed = Resumed(checkpoint, wrong is None, environment, recipe, passed)
    if wrong is None:
        return resumed
    for path, problem in passed:
        say(f"{path / problem}: this checkpoint is passed over, and kept as damaged-{path.name}")
    if checkpoint is not None and checkpoint.note:
        say(f"{checkpoint.path} {checkpoint.note}")
    _check_made_again(folder, checkpoint, wrong)
    if folder.summary.is_file() and checkpoint is not None:
        say(f"{wrong}: made again from {checkpoint.path.name}")
    elif checkpoint is None and passed:
        say("no checkpoint is whole: the run starts over")
    return resumed


def has_updates_left(loaded: LoadedRecipe, folder: RunFolder) -> bool:
    """Whether `take_up` would find something to train in a run that is held by this process. Writes nothing.

    Raises `RunError` where `take_up` would.
    """
    if any(path.is_dir() for path in folder.files):
        return True  # which `take_up` sets aside before it looks at anything
    checkpoint, _ = _newest(folder, loaded.recipe)
    environment = _environment(folder, checkpoint, None)
    saved = checkpoint.saved.get("recipe") if checkpoint is not None else None
    _own(loaded, folder, _as_begun(saved, environment, loaded.recipe))
    if (wrong := _unfinished(folder)) is not None:
        _check_made_again(folder, checkpoint, wrong)
    return wrong is not None


def mend_recipe(path: Path, say: Say) -> None:
    """Write a run's recipe.toml again from its last checkpoint, if it is not there whole."""
    folder = RunFolder(path)
    checkpoint, _ = newest_whole(folder)
    if checkpoint is not None and checkpoint.saved:
        _mend_recipe(folder, checkpoint.saved["recipe"], say)


def _newest(folder: RunFolder, recipe: Recipe) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint; an old one also needs the best adapter so far, which it does not carry itself."""

    def fits(checkpoint: Checkpoint) -> str:
        if checkpoint.saved or not recipe.eval.early_stopping_patience:
            return ""
        rows = (row for row in read_rows(folder.metrics) if row["update"] <= checkpoint.update)
        best = best_by_log(recipe, rows).update
        kept = folder.checkpoints / BEST
        if not best or best == checkpoint.update:
            return ""
        if not kept.is_file():
            return f"../{BEST}: missing"
        wrong = safetensors_damage(kept)
        return f"../{BEST}: {wrong}" if wrong else ""

    return newest_whole(folder, fits)


def _environment(folder: RunFolder, checkpoint: Checkpoint | None, say: Say | None) -> dict[str, Any]:
    """environment.json, written again from the checkpoint where it is damaged or gone; not without a `say` for it."""
    saved = checkpoint.saved.get("environment") if checkpoint is not None else None
    found: dict[str, Any] = {}
    try:
        found = read_object(folder.environment)
        wrong = "" if found else f"{folder.environment}: missing"
        if found:
            _ = found["engine"]["engine"]["value"], found["data"]["train_table_key"]
    except RunError as error:
        wrong = str(error)
    except (KeyError, TypeError):
        wrong = f"{folder.environment}: does not say engine and data, as it did when the run began"
    if not wrong:
        return found
    if saved and checkpoint is not None:
        if say is not None:
            say(f"{wrong}: written again from {checkpoint.path.name}")
            write_json(folder.environment, saved)
        return dict(saved)
    if checkpoint is not None and folder.environment.is_file():
        raise RunError(
            f"{wrong}; without it nothing says which engine and data {checkpoint.path.name} was made with. Put a copy "
            "of it back, or delete it to go on unchecked"
        )
    return {}


def _as_begun(saved: str | None, environment: Mapping[str, Any], given: Recipe) -> str | None:
    """The recipe that a run began with, where that is known: `saved` is the text that a checkpoint carries."""
    if saved is not None:
        return saved
    return dump(given) if environment.get("recipe_sha256") == sha256_of_text(dump(given)) else None


def _own(loaded: LoadedRecipe, folder: RunFolder, began: str | None) -> tuple[Recipe, Recipe]:
    """The recipe as given, with the run's commits, and the run's own. Raises `RunError` where they differ."""
    own = parsed(began, folder) if began is not None else load(folder.recipe).recipe
    given = pinned_as(named_as(loaded.recipe, own, Known.of(folder.path)), own)
    check_same(given, str(loaded.path), own, folder)
    return given, own


def _check_made_again(folder: RunFolder, checkpoint: Checkpoint | None, wrong: str) -> None:
    """Raise `RunError` for a run that has ended, lacks what is `wrong`, and has no checkpoint to make it from."""
    if checkpoint is None and folder.summary.is_file():
        again = typed("run", folder.recipe, "--out", f"{folder.path}-again")
        raise RunError(f"{wrong}; no checkpoint is whole to make it again from. Train anew with: {again}")


def _mend_recipe(folder: RunFolder, began: str | None, say: Say) -> None:
    """Write recipe.toml again where it is not what the run `began` with and that is known.

    What a user may change for a resumption may be changed in it.
    """
    text = folder.recipe.read_bytes() if folder.recipe.is_file() else b""
    if began is None or text == began.encode():
        return
    try:
        now, then = load(folder.recipe).recipe, parsed(began, folder)
        if not differences(now, then) and then.train.fitted_steps in (None, now.train.fitted_steps):
            return
        wrong = " not what the run was trained with"
    except RecipeError as error:
        wrong = str(error.problems[0]).removeprefix(f"{folder.recipe}").lstrip(":")
    say(f"{folder.recipe}:{wrong}; written again as the run began")
    write_text(folder.recipe, began, durable=True)


def parsed(text: str, folder: RunFolder) -> Recipe:
    """A recipe of `folder` as a checkpoint carries it. Raises `RecipeError`."""
    return validate(tomllib.loads(text), lambda path: None, fallback=str(folder.recipe))


def _unfinished(folder: RunFolder) -> str | None:
    """What of a trained run is not there, as `FILE: what is wrong`; None where all is."""
    if not folder.summary.is_file():
        return f"{folder.summary}: missing"
    try:
        summary = read_object(folder.summary)
        if wrong := folder.adapter_damage():
            return f"{folder.adapter}/{wrong}"
        read_list(folder.samples)
        for path in folder.evaluation.glob("*.jsonl"):
            Evaluation.load(path)
    except InputError as error:
        return str(error)
    return None if summary else f"{folder.summary}: empty"
