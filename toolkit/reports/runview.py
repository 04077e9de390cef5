"""A run folder read whole: what it was asked, what happened, what came out, and what the log reader says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import Problem, RunError
from toolkit.evaluation.best import Best, best_by_log
from toolkit.evaluation.results import LOGGED, Evaluation
from toolkit.files import is_held
from toolkit.recipe.schema import Recipe
from toolkit.records import is_sealed, read_list, read_object
from toolkit.reports.log import Facts, Log, read_metrics
from toolkit.reports.reading import Reader
from toolkit.reports.verdicts import Verdict
from toolkit.runs import RunFolder, recipe_of
from toolkit.words import typed

State = Literal["finished", "training now", "stopped", "failed"]
EVALUATED = frozenset(("eval_loss", *LOGGED))  # keys of a row


@dataclass(slots=True)
class RunView:
    """Everything that is shown of one run. What a folder does not hold is None or empty."""

    folder: RunFolder
    name: str
    recipe: Recipe
    recipe_text: str
    state: State
    rows: list[dict[str, Any]]
    log: Log
    facts: Facts
    verdicts: list[Verdict]
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    before: Evaluation | None = None
    after: Evaluation | None = None
    bad_lines: list[Problem] = field(default_factory=list)  # of metrics.jsonl, left out
    evaluated: list[dict[str, Any]] = field(default_factory=list)  # rows that have anything measured on held-out chats

    @property
    def sealed(self) -> bool:
        """Whether environment.json and summary.json, as far as they are there, have checksums, which fit."""
        return all(is_sealed(path) for path in (self.folder.environment, self.folder.summary) if path.is_file())

    @classmethod
    def load(cls, path: Path) -> RunView:
        """Read a run folder. Raises `RunError` (or another `InputError`) that names the file that can't be read."""
        folder = open_run(path)
        bad: list[Problem] = []
        rows = read_metrics(folder.metrics, bad)
        recipe = recipe_of(folder)
        environment = read_object(folder.environment, folder.mended)
        summary = read_object(folder.summary, folder.mended)
        facts = facts_of(recipe, environment, summary)
        state = state_of(folder)
        reader = Reader(facts)
        reader.read(rows, finished=state != "training now")
        return cls(
            folder=folder,
            name=path.resolve().name,
            recipe=recipe,
            recipe_text=folder.recipe.read_text(encoding="utf-8"),
            state=state,
            rows=rows,
            log=reader.log,
            facts=facts,
            verdicts=reader.verdicts,
            environment=environment,
            summary=summary,
            samples=_samples(folder),
            before=_evaluation(folder.evaluation / "before.jsonl"),
            after=_evaluation(folder.evaluation / "after.jsonl"),
            bad_lines=bad,
            evaluated=[row for row in rows if not EVALUATED.isdisjoint(row)],
        )

    @property
    def updates(self) -> int:
        return self.log.last_update

    @property
    def last_loss(self) -> float | None:
        """Of the last row with a finite one."""
        return next((loss for loss in reversed(self.log.losses) if math.isfinite(loss)), None)

    @property
    def lowest_loss(self) -> tuple[int, float] | None:
        """(update, loss) of the least held-out loss."""
        best = min(self.log.evaluations, key=lambda e: e.loss, default=None)
        return (best.update, best.loss) if best is not None else None

    @property
    def best(self) -> Best | None:
        """The best evaluation by the run's own rule, `eval.best`; None before there is one."""
        best = best_by_log(self.recipe, self.evaluated)
        return best if best.found else None

    @property
    def tokens_per_second(self) -> float | None:
        """Real tokens over the time of all rows, evaluation left out; None where the rows do not say."""
        counted = [(row["real_tokens"], row["seconds"]) for row in self.rows if row.get("seconds")]
        seconds = sum(s for _, s in counted)
        return sum(tokens or 0 for tokens, _ in counted) / seconds if seconds else None

    @property
    def peak_memory(self) -> float | None:
        known = [value for value in self.log.memory if math.isfinite(value)]
        return max(known, default=self.summary.get("peak_memory"))

    @property
    def device(self) -> str:
        hardware = self.environment.get("hardware") or {}
        gpu = hardware.get("gpu")
        return str(gpu["name"] if gpu else hardware.get("cpu") or "")


def open_run(path: Path) -> RunFolder:
    """The run folder at `path`. Raises `RunError` where there is none, with the runs below it if there are some."""
    if not path.exists():
        raise RunError(f"{path}: no such folder; `{typed('runs')}` lists the runs there are")
    return RunFolder.open(path)


def facts_of(recipe: Recipe, environment: dict[str, Any], summary: dict[str, Any]) -> Facts:
    """What the log reader needs of a run, the number of its chats included where the run says it."""
    found: Any = environment
    for name in ("data", "train", "chats"):
        found = found.get(name) if isinstance(found, dict) else None
    chats = found or summary.get("chats")
    if isinstance(chats, int) and chats > 0:
        return Facts.of(recipe, chats)
    train = recipe.train
    return Facts(learning_rate=train.learning_rate, fp16=train.fp16, max_grad_norm=train.max_grad_norm)


def state_of(folder: RunFolder) -> State:
    """Whether a run ended well, goes on in another process, was stopped, or failed before training had begun."""
    if folder.summary.is_file():
        return "finished"
    if is_held(folder.path):
        return "training now"
    begun = folder.environment.is_file() or folder.metrics.is_file() or folder.all_checkpoints()
    return "stopped" if begun else "failed"


def _samples(folder: RunFolder) -> list[dict[str, Any]]:
    """samples.json. Raises `RunError` where one is not as training writes it."""
    found = read_list(folder.samples, folder.mended)
    for number, sample in enumerate(found, 1):
        lists = [sample.get(name) for name in ("ids", "texts", "trained")]
        counts = all(isinstance(sample.get(name), int) for name in ("tokens", "trained_tokens"))
        alike = all(isinstance(one, list) for one in lists) and len({len(one or ()) for one in lists}) == 1
        numbers = all(isinstance(one, int) for one in (lists[0] or ())) if alike else False
        if not (counts and numbers and {"kind", "where"} <= sample.keys()):
            raise RunError(f"{folder.samples}: sample {number} is not as training writes it; {folder.mended}")
    return found


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None

    return Evaluation.load(path)
