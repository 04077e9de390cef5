"""`toolkit verify RUN`: its first updates made again and compared with its log."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from toolkit import __version__, engines, models
from toolkit.data.clock import day_of
from toolkit.data.render import Renderer
from toolkit.data.tokenizers import load_tokenizer
from toolkit.data.trained_on import check_trained_on
from toolkit.errors import InterruptedRun, RunError, ToolkitError
from toolkit.hardware import detect
from toolkit.planning.budget import budget_of
from toolkit.planning.cuts import Cut
from toolkit.planning.steps import updates_of
from toolkit.progress import Bar
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object, write_json
from toolkit.reports.report import write_report
from toolkit.runs import RunFolder
from toolkit.training import resumed_settings
from toolkit.training.loading import load_model, tables_of
from toolkit.training.prepared import Prepared
from toolkit.training.verify import began as beginnings
from toolkit.training.verify.compare import (
    Number,
    Tolerance,
    Verdict,
    first_updates,
    numbers_of,
    sentence,
    tolerance_for,
    verdict_of,
)

UPDATES = 5  # the first of most runs is made with a rate of 0, so the second has the first's weights


def verify_run(path: Path, console: Console, updates: int = UPDATES) -> tuple[Verdict, str]:
    """Train the first `updates` of the run in `path` again, compare, and write verification.json.

    Returns the verdict, and a sentence that says it. Raises `InputError` where the run, its data or its model is not
    what it was or can't be trained here, and `TrainingError` where training fails.
    """
    try:
        return _verify(RunFolder(path), console, updates)
    except KeyboardInterrupt:
        raise InterruptedRun(f"stopped; nothing of {path} was changed") from None


def _verify(folder: RunFolder, console: Console, updates: int) -> tuple[Verdict, str]:
    began = beginnings.read_began(folder)
    beginnings.check_processes(began, folder)
    recipe = began.recipe
    last = began.last_update(updates)
    console.print(f"verifying  {folder.path}: updates 1 to {last}", markup=False)
    check_trained_on(recipe, folder.path)
    hardware = detect()
    _set_threads(began.threads, cuda=hardware.gpu is not None)
    engine, precision = engines.choose(recipe, hardware, began.engine)  # imports Unsloth first where it is the engine
    found = list(beginnings.surroundings(began, hardware, engine.value, precision.value))
    for difference in found:
        console.print(f"differs    {difference}", markup=False)
    tolerance = tolerance_for(
        same=not found,
        gpu=hardware.gpu is not None,
        precision=precision.value,
        quantized=recipe.model.load_in_4bit,
    )
    console.print(f"wanted     {tolerance}", markup=False)

    model_folder = models.resolve(recipe.model)
    beginnings.check_model(began, folder, model_folder)
    tokenizer = load_tokenizer(model_folder)
    template, kept = resumed_settings.template_of(recipe, tokenizer, folder, began.environment)
    tokenizer = Renderer.by(tokenizer, template).tokenizer
    day = day_of(began.environment)
    tables = tables_of(recipe, model_folder, template if kept else None, day)
    beginnings.check_tokens(began, folder, tables)
    budget = began.budget or budget_of(recipe, engine.value, precision.value, hardware, tables.train)
    started = time.perf_counter()
    loaded = load_model(recipe, model_folder, tokenizer, engine, precision, hardware, budget)
    prepared = Prepared(_quiet(recipe), loaded, tables, updates_of(recipe, tables.train.n_chats), budget)

    comparison = Comparison(began.rows, last, tolerance, console)
    threads = {row["update"]: row["threads"] for row in began.rows if isinstance(row.get("threads"), int)}
    cuts = {row["update"]: cut for row in began.rows if (cut := Cut.of(row)) is not None}
    # PyTorch, and what is another under Unsloth
    from toolkit.training.verify.again import train_again

    with ExitStack() as held:
        work = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="toolkit-verify-")))
        held.enter_context(comparison.bar)
        train_again(prepared, work, last, threads, cuts, comparison.seen)
    verdict, said = comparison.verdict(folder, last, began.why_different)
    record = {
        "verified": datetime.now(UTC).isoformat(timespec="seconds"),
        "toolkit": __version__,
        "verdict": verdict,
        "sentence": said,
        "wanted": str(tolerance),
        "updates": last,
        "seconds": round(time.perf_counter() - started, 1),
        "differences": [asdict(difference) for difference in found],
        "numbers": [asdict(number) for number in comparison.numbers],
    }
    keep_record(folder, "training", record, console)
    return verdict, said


class Comparison:
    """Compares rows as they come with those of the log, and shows them."""

    def __init__(self, rows: list[dict[str, Any]], last: int, tolerance: Tolerance, console: Console) -> None:
        self.trained = {row["update"]: row for row in rows if row.get("loss") is not None}
        self.evaluated = {row["update"]: row for row in rows if row.get("eval_loss") is not None}
        self.numbers: list[Number] = []
        self.tolerance, self.console = tolerance, console
        self.bar = Bar(console, "updates", last)

    def seen(self, row: dict[str, Any]) -> None:
        """Take a row of the updates made again."""
        update, evaluation = row["update"], "eval_loss" in row
        if not evaluation:
            self.bar.update(update)
        then = (self.evaluated if evaluation else self.trained).get(update)
        for number in numbers_of(then, row) if then is not None else ():
            self.numbers.append(number)
            mark = "same" if number.equal else "within" if number.fits(self.tolerance) else "DIFFERENT"
            if number.name != "learning_rate" or not number.equal:
                self.console.print(f"{mark:<10} update {update}: {number.told()}", markup=False)

    def verdict(self, folder: RunFolder, last: int, why: Callable[[int], str]) -> tuple[Verdict, str]:
        if not any(number.name == "loss" for number in self.numbers):
            raise RunError(f"{folder.metrics}: no loss of {first_updates(last)} to compare with")
        return verdict_of(self.numbers, self.tolerance), sentence(self.numbers, self.tolerance, last, why)


def keep_record(folder: RunFolder, part: str, record: dict[str, Any], console: Console) -> None:
    """Put one part of verification.json in the place of an earlier one, and make report.html again if there is one."""
    try:
        known = read_object(folder.verification)
    except RunError:
        known = {}  # damaged, and made again
    write_json(folder.verification, {**known, part: record})
    if not folder.report.is_file():
        return
    try:
        write_report([folder.path], folder.report)
    except (OSError, ToolkitError) as error:
        console.print(f"report     not written: {error}", markup=False)


def _quiet(recipe: Recipe) -> Recipe:
    """The recipe without what reports elsewhere."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"report_to": []})})


def _set_threads(threads: int, *, cuda: bool) -> None:
    import torch  # seconds, which a folder that is no run does not wait for

    if threads and not cuda:
        torch.set_num_threads(threads)
