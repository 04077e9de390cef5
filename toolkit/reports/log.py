"""A training log in memory: the rows of metrics.jsonl as series, and what the recipe says about them."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import Problem, RunError
from toolkit.planning.cuts import Cut
from toolkit.planning.steps import rising, updates_of
from toolkit.records import read_rows
from toolkit.reports.statistics import mad_sigma

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe

SPIKE_WINDOW = 50  # rows before a row that its gradient norm is compared with
SPIKE_LEAST = 20
SPIKE_SIGMA = 6.0  # of log norms around their median; one in 10^9 of normal noise
SPIKE_FACTOR = 4.0
MOST_LOG = 27.0  # of a ratio: beyond 10^11 times the median it says no more


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run beside its log. All have a value that means "not known"."""

    total: int = 0  # updates planned
    warmup: int = 0  # updates during which the rate rises
    per_epoch: int = 0
    learning_rate: float = 0.0
    epochs: float = 0.0
    fp16: bool = False
    max_grad_norm: float = 1.0
    patience: int = 0
    held_out: int = 0  # chats
    decoded: int = 0  # held-out chats whose answers are decoded at an evaluation, at most
    dropout: float = 0.0
    logging_steps: int = 0  # updates a row
    minutes: float = 0.0  # the time budget, where it holds fewer updates than the epochs have

    @classmethod
    def of(cls, recipe: Recipe, n_chats: int) -> Facts:
        """Of a recipe over `n_chats` training chats."""
        updates = updates_of(recipe, n_chats)
        return cls(
            total=updates.total,
            warmup=rising(recipe.train, updates),
            per_epoch=updates.per_epoch,
            learning_rate=recipe.train.learning_rate,
            epochs=updates.epochs,
            fp16=recipe.train.fp16,
            max_grad_norm=recipe.train.max_grad_norm,
            patience=recipe.eval.early_stopping_patience,
            held_out=0 if recipe.eval.sources or recipe.eval.holdout < 1 else int(recipe.eval.holdout),
            decoded=recipe.eval.generate,
            dropout=recipe.lora.lora_dropout,
            logging_steps=recipe.train.logging_steps,
            minutes=(recipe.train.max_minutes or 0.0) if updates.planned is not None else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation. groups: mean loss of the same groups of held-out chats each time; empty in older logs. chats:
    how many were held out; 0 in older logs. calls: the share of right answers; None where none were decoded."""

    update: int
    epoch: float
    loss: float
    groups: tuple[float, ...] = ()
    chats: int = 0
    calls: float | None = None


@dataclass(slots=True)
class Log:
    """Series of a log, one entry a training row; a number that a row does not have is NaN there."""

    updates: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)  # (update, fp16 updates skipped up to it)
    broken: list[tuple[int, str, float]] = field(default_factory=list)  # (update, name, what can't be)
    zeros: list[int] = field(default_factory=list)  # updates with a loss of exactly 0
    cuts: list[tuple[int, Cut]] = field(default_factory=list)  # (update, of micro-batches where memory ran out)
    spikes: list[tuple[int, float]] = field(default_factory=list)  # (update, times the median gradient norm before)
    evaluations: list[Evaluated] = field(default_factory=list)
    _finite: tuple[list[int], list[float]] = field(default_factory=lambda: ([], []))
    _calm: deque[float] = field(default_factory=deque)  # logs of the last norms that did not spike
    _ordered: list[float] = field(default_factory=list)  # the same in order, so that no row sorts them again

    def add(self, row: Mapping[str, Any]) -> bool:
        """Take a row of metrics.jsonl; returns whether it is one of training (else of evaluation, or neither)."""
        update = int(row["update"])
        for name in ("loss", "grad_norm", "eval_loss"):
            value = row.get(name)
            if value is not None and not _possible(value):
                self.broken.append((update, name, float(value)))
        if row.get("eval_loss") is not None:
            if _possible(row["eval_loss"]):
                groups = tuple(map(_number, row.get("eval_groups") or ()))
                groups = groups if all(map(math.isfinite, groups)) else ()
                epoch, chats = self.epoch_of(update), int(row.get("eval_chats") or 0)
                calls = row.get("eval_calls")
                self.evaluations.append(Evaluated(update, epoch, _number(row["eval_loss"]), groups, chats, calls))
            return False
        if row.get("loss") is None:
            if (cut := Cut.of(row)) is not None:
                self.cuts.append((update, cut))
            return False
        self.updates.append(update)
        self.epochs.append(_number(row.get("epoch")))
        self.losses.append(_number(row["loss"]))
        self.grad_norms.append(_number(row.get("grad_norm")))
        self.rates.append(_number(row.get("learning_rate")))
        self.speeds.append(_number(row.get("tokens_per_second")))
        self.memory.append(_number(row.get("memory")))
        if _possible(self.losses[-1]):
            self._finite[0].append(update)
            self._finite[1].append(self.losses[-1])
        if self.losses[-1] == 0.0:
            self.zeros.append(update)
        self._watch(update, self.grad_norms[-1])
        if row.get("skipped_updates") is not None:
            self.skipped.append((update, int(row["skipped_updates"])))
        return True

    def _watch(self, update: int, norm: float) -> None:
        """Note a gradient norm above `SPIKE_FACTOR` times the median of those before, and out of their spread."""
        if not math.isfinite(norm) or norm <= 0:
            return
        logarithm = math.log(norm)
        if len(self._calm) >= SPIKE_LEAST:
            n = len(self._ordered)
            above = logarithm - (self._ordered[(n - 1) // 2] + self._ordered[n // 2]) / 2
            if above > math.log(SPIKE_FACTOR) and above > SPIKE_SIGMA * mad_sigma(self._calm):
                self.spikes.append((update, math.exp(min(above, MOST_LOG))))
                return
        self._calm.append(logarithm)
        bisect.insort(self._ordered, logarithm)
        if len(self._calm) > SPIKE_WINDOW:
            del self._ordered[bisect.bisect_left(self._ordered, self._calm.popleft())]

    def epoch_of(self, update: int) -> float:
        """The epoch at `update`, by the last row before it that says one; NaN where none does."""
        for seen, epoch in zip(reversed(self.updates), reversed(self.epochs), strict=True):
            if math.isfinite(epoch) and seen:
                return epoch * update / seen
        return 0.0 if update == 0 else math.nan

    @property
    def last_update(self) -> int:
        evaluated = self.evaluations[-1].update if self.evaluations else 0
        return max(self.updates[-1] if self.updates else 0, evaluated)

    def finite_losses(self) -> tuple[list[int], list[float]]:
        """Updates and losses of the rows whose loss is a number that a loss can be. The log's own lists, to be read."""
        return self._finite


def _number(value: Any) -> float:
    return math.nan if value is None else float(value) + 0.0  # -0.0 becomes 0.0, which is how it reads


def _possible(value: float) -> bool:
    """Whether a loss or a gradient norm can be this: finite, and not below 0."""
    return math.isfinite(value) and value >= 0


def read_metrics(path: Path, bad: list[Problem] | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; lines that are none are left out, and added to `bad` with their place.

    Raises `RunError` when there is no row.
    """
    if not path.is_file():
        raise RunError(f"{path}: no metrics yet; training has not begun, or this is not a run folder")
    found: list[Problem] = []
    rows = list(read_rows(path, found))
    if not rows:
        raise RunError(found[:5] or f"{path}: no metrics yet; wait for the first update")
    if bad is not None:
        bad += found
    return rows
