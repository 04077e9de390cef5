"""What a run began with, by its folder, and what of it is not so any more.

What decides the numbers (recipe, data, model, template) has to be the same, and is refused by name where it is not.
What decides their last bits (versions, CPU, threads, GPU) may differ, and is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import engines
from toolkit.engines.recipes import load
from toolkit.errors import RecipeError, RunError
from toolkit.files import is_held
from toolkit.hardware import Hardware
from toolkit.hashes import sha256_of
from toolkit.planning.budget import Budget
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object, read_rows
from toolkit.runs import RunFolder, differences
from toolkit.training.checkpoints import newest_whole
from toolkit.training.prepared import Tables
from toolkit.training.record import BEGAN, WENT_ON, described_model
from toolkit.training.resume import parsed


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.then} then, {self.now} now"


@dataclass(frozen=True, slots=True)
class Began:
    """`environment`: environment.json. `first`: of it, what the first updates were made with; empty where a run went
    on elsewhere and that is lost. `rows`: of metrics.jsonl."""

    recipe: Recipe
    environment: dict[str, Any]
    first: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def engine(self) -> str:
        return str(self.environment["engine"]["engine"]["value"])

    @property
    def threads(self) -> int:
        """CPU threads at the start; 0 where that is not known."""
        return int((self.first.get("process") or {}).get("threads") or 0)

    @property
    def budget(self) -> Budget | None:
        """How updates were cut, where that was written down."""
        cut = self.first.get("micro_batch")
        return Budget(**cut) if cut else None

    def last_update(self, wanted: int) -> int:
        """The last update to make again: `wanted`, or the nearest with a row of its own; the first with one where that
        comes later, as with train.logging_steps."""
        logged = [row["update"] for row in self.rows if row.get("loss") is not None]
        return max([update for update in logged if update <= wanted] or logged[:1])

    def why_different(self, update: int) -> str:
        """Why one process makes `update` otherwise than this run, which began alone, did; empty where nothing says."""
        if not self.first or _processes(self.first) > 1:
            return ""
        for one in self.environment.get(WENT_ON) or ():
            after, processes = one["update"], one["processes"]
            if processes > 1 and after < update:
                dropout = "which draw other random numbers for lora.lora_dropout than one does"
                what = dropout if self.recipe.lora.lora_dropout else "which sum in another order than one does"
                before = f"--updates {after} compares what came before"
                return f"after update {after} the run went on with {processes} processes, {what} ({before})"
        return ""


def read_began(folder: RunFolder) -> Began:
    """Read a run folder. Raises `RunError` where there is none, or one that says too little."""
    if not folder.recipe.is_file():
        if (folder.path / "export.json").is_file():
            raise RunError(f"{folder.path}: an export, not a run; wanted --export to check its files")
        RunFolder.open(folder.path)  # which says what is there
    if is_held(folder.path):
        raise RunError(f"{folder.path}: training now, in another process; wanted a run that has ended or was stopped")
    environment = read_object(folder.environment, folder.mended)
    if not environment:
        raise RunError(f"{folder.environment}: missing: training has not begun here; begin it with: {folder.resuming}")
    try:
        _ = environment["engine"]["engine"]["value"], environment["data"]["train_table_key"], environment["model"]
    except (KeyError, TypeError):
        raise RunError(f"{folder.environment}: does not say engine, data and model; {folder.mended}") from None
    rows = list(read_rows(folder.metrics))
    if not any(row.get("loss") is not None for row in rows):
        raise RunError(f"{folder.metrics}: no update is logged yet; begin or go on with: {folder.resuming}")
    first = environment.get(BEGAN, environment)
    return Began(_recipe_of(folder, environment), environment, first, rows)


def _recipe_of(folder: RunFolder, environment: Mapping[str, Any]) -> Recipe:
    """recipe.toml. Raises `RunError` where it was changed since, but for what changes no number."""
    recipe = load(folder.recipe).recipe
    wanted, found = environment.get("recipe_sha256"), sha256_of(folder.recipe)
    if wanted in (None, found):
        return recipe
    checkpoint, _ = newest_whole(folder)
    try:
        if checkpoint is not None and not differences(recipe, parsed(checkpoint.saved["recipe"], folder)):
            return recipe
    except (RecipeError, KeyError):
        pass
    raise RunError(
        f"{folder.recipe}: changed since the run began (SHA-256 {wanted} wanted, {found} found); put it back from a "
        "copy, or from the run.json of a checkpoint"
    )


def check_processes(began: Began, folder: RunFolder) -> None:
    """Raise `RunError` where one process can't make what several did."""
    processes = _processes(began.first)
    if processes > 1 and began.recipe.lora.lora_dropout:
        raise RunError(
            f"{folder.path}: trained by {processes} processes with lora.lora_dropout, each with random numbers of its "
            "own, which one process can't draw; wanted a run of one process, or one without dropout"
        )


def check_model(began: Began, folder: RunFolder, model_folder: Path) -> None:
    """Raise `RunError` where the base model is another, by the file."""
    then, now = began.environment["model"], described_model(began.recipe, model_folder)
    told = f"not the model that {folder.path} was trained from"
    if then.get("config_sha256") not in (None, now["config_sha256"]):
        hashes = f"SHA-256 {then['config_sha256']} wanted, {now['config_sha256']} found"
        raise RunError(f"{model_folder / 'config.json'}: {told} ({hashes})")
    for name, size in (then.get("weights") or {}).items():
        if now["weights"].get(name) != size:
            there = f"{now['weights'][name]:,} bytes found" if name in now["weights"] else "it is not there"
            raise RunError(f"{model_folder / name}: {told} ({size:,} bytes wanted, {there})")
    key = "tokenizer_and_template_key"
    if then.get(key) not in (None, now[key]):
        raise RunError(
            f"{model_folder}: its tokenizer or chat template is another (key {then[key]} wanted, {now[key]} found)"
        )


def check_tokens(began: Began, folder: RunFolder, tables: Tables) -> None:
    """Raise `RunError` where the same files give other tokens."""
    data = began.environment["data"]
    for part, table in (("train", tables.train), ("eval", tables.evaluation)):
        wanted = data.get(f"{part}_table_content")
        if wanted is not None and table is not None and wanted != table.content:
            raise RunError(
                f"{folder.path}: its data gives other tokens now (the {part} part's hash is {table.content}, {wanted} "
                "wanted): hub data without a revision that has moved, or other versions of the toolkit and libraries"
            )


def surroundings(began: Began, hardware: Hardware, engine: str, precision: str) -> Iterator[Difference]:
    """What is not as it was when the first updates were made, beside the data: versions, CPU, threads, GPU, engine."""
    first = began.first
    if not first:
        yield Difference("first updates", "made before the run went on elsewhere, which is not known", "this machine")
        return
    report = first.get("engine") or {}
    then_versions, now_versions = report.get("versions") or {}, engines.versions()
    for name in {**then_versions, **now_versions}:
        yield from _differing(name, then_versions.get(name, "none"), now_versions.get(name, "none"))
    then_hardware = first.get("hardware") or {}
    gpu = (then_hardware.get("gpu") or {}).get("name", "none")
    yield from _differing("GPU", gpu, hardware.gpu.name if hardware.gpu else "none")
    yield from _differing("CPU", then_hardware.get("cpu"), hardware.cpu)
    process = first.get("process") or {}
    import torch  # Unsloth has to come before it

    yield from _differing("CPU instructions", process.get("cpu_capability"), torch.backends.cpu.get_cpu_capability())
    yield from _differing("CPU threads", process.get("threads"), torch.get_num_threads())
    yield from _differing("processes", _processes(first), 1)
    yield from _differing("engine", (report.get("engine") or {}).get("value"), engine)
    yield from _differing("precision", (report.get("precision") or {}).get("value"), precision)


def _processes(environment: Mapping[str, Any]) -> int:
    return int((environment.get("ranks") or {}).get("processes") or 1)


def _differing(name: str, then: object, now: object) -> Iterator[Difference]:
    if then != now:
        yield Difference(name, "not recorded" if then is None else str(then), str(now))
