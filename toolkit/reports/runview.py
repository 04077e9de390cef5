"""A run folder read whole: what it was asked, what happened, what came out, and what the log reader says of it."""

from __future__ import annotations

import fcntl
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import RunError
from toolkit.reports.log import Facts, Log, read_metrics
from toolkit.reports.reading import read
from toolkit.reports.verdicts import Verdict
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from toolkit.evaluation.results import Evaluation
    from toolkit.recipe.schema import Recipe
    from toolkit.training.best import Best

State = Literal["finished", "training now", "stopped"]


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

    @classmethod
    def load(cls, path: Path) -> RunView:
        """Read a run folder. Raises `RunError` (or another `InputError`) that names the file that can't be read."""
        from toolkit.recipe import load

        folder = open_run(path)
        rows = read_metrics(folder.metrics)
        recipe = load(folder.recipe).recipe
        environment = read_object(folder.environment)
        summary = read_object(folder.summary)
        log = Log()
        for row in rows:
            log.add(row)
        facts = facts_of(recipe, environment, summary)
        state = state_of(folder)
        return cls(
            folder=folder,
            name=path.resolve().name,
            recipe=recipe,
            recipe_text=folder.recipe.read_text(encoding="utf-8"),
            state=state,
            rows=rows,
            log=log,
            facts=facts,
            verdicts=read(rows, facts, finished=state != "training now"),
            environment=environment,
            summary=summary,
            samples=read_list(folder.samples),
            before=_evaluation(folder.evaluation / "before.jsonl"),
            after=_evaluation(folder.evaluation / "after.jsonl"),
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
        from toolkit.training.best import Best

        settings = self.recipe.eval
        best = Best(settings.best == "calls", settings.early_stopping_threshold)
        for row in self.rows:
            if row.get("eval_loss") is not None:
                best.judge(row, row["update"])
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
        raise RunError(f"{path}: no such folder; `toolkit runs` lists the runs there are")
    if path.is_dir() and not (path / "recipe.toml").is_file():
        inside = sorted(child.parent.name for child in path.glob("*/recipe.toml"))
        if inside:
            raise RunError(f"{path}: not a run folder, but it holds some: {', '.join(inside[:5])}")
    return RunFolder.open(path)


def facts_of(recipe: Recipe, environment: dict[str, Any], summary: dict[str, Any]) -> Facts:
    """What the log reader needs of a run, the number of its chats included where the run says it."""
    chats = ((environment.get("data") or {}).get("train") or {}).get("chats") or summary.get("chats") or 0
    if chats:
        return Facts.of(recipe, int(chats))
    train = recipe.train
    return Facts(learning_rate=train.learning_rate, fp16=train.fp16, max_grad_norm=train.max_grad_norm)


def state_of(folder: RunFolder) -> State:
    """Whether a run ended well, goes on in another process, or was stopped."""
    if folder.summary.is_file():
        return "finished"
    return "training now" if _held(folder.path) else "stopped"


def _held(path: Path) -> bool:
    """Whether another process holds the folder (`RunFolder.held`)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(handle)
    return False


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file. Raises `RunError` for anything else."""
    value = _read(path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RunError(f"{path}: wanted a JSON object, found {type(value).__name__}")
    return value


def read_list(path: Path) -> list[dict[str, Any]]:
    value = _read(path)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RunError(f"{path}: wanted a list of JSON objects")
    return value


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not JSON: {error}") from None


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    from toolkit.evaluation.results import Evaluation

    return Evaluation.load(path)
