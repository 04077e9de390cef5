"""A training log in memory: the rows of metrics.jsonl as series, and what the recipe says about them."""

from __future__ import annotations

import bisect
import math
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import Problem, RunError
from toolkit.planning.cuts import Cut
from toolkit.planning.steps import updates_of
from toolkit.records import read_rows
from toolkit.reports.statistics import mad_sigma

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe

SPIKE_WINDOW = 50  # rows before a row that its gradient norm is compared with
SPIKE_LEAST = 20
SPIKE_SIGMA = 6.0  # of log norms around their median; one in 10^9 of normal noise
SPIKE_FACTOR = 4.0
SPIKE_LOG = math.log(SPIKE_FACTOR)
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
            warmup=updates.warmup,
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


def whole_numbers() -> array[int]:
    return array("q")


def floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Log:
    """Series of a log, one entry a training row; a number that a row does not have is NaN there.

    They are arrays, of 8 bytes a number, which numpy reads without a copy: nothing may hold on to such a view, as no
    array can grow under one.
    """

    updates: array[int] = field(default_factory=whole_numbers)
    epochs: array[float] = field(default_factory=floats)
    losses: array[float] = field(default_factory=floats)
    grad_norms: array[float] = field(default_factory=floats)
    rates: array[float] = field(default_factory=floats)
    speeds: array[float] = field(default_factory=floats)
    memory: array[float] = field(default_factory=floats)
    tokens: array[float] = field(default_factory=floats)  # real ones of a row's updates
    skipped: list[tuple[int, int]] = field(default_factory=list)  # (update, fp16 updates skipped up to it)
    broken: list[tuple[int, str, float]] = field(default_factory=list)  # (update, name, what can't be)
    zeros: list[int] = field(default_factory=list)  # updates with a loss of exactly 0
    cuts: list[tuple[int, Cut]] = field(default_factory=list)  # (update, of micro-batches where memory ran out)
    spikes: list[tuple[int, float]] = field(default_factory=list)  # (update, times the median gradient norm before)
    evaluations: list[Evaluated] = field(default_factory=list)
    _finite: tuple[array[int], array[float]] = field(default_factory=lambda: (whole_numbers(), floats()))
    _calm: deque[float] = field(default_factory=deque)  # logs of the last norms that did not spike
    _ordered: list[float] = field(default_factory=list)  # the same in order, so that no row sorts them again

    def add(self, row: Mapping[str, Any]) -> bool:
        """Take a row of metrics.jsonl; returns whether it is one of training (else of evaluation, or neither)."""
        update, said = int(row["update"]), row.get
        loss, norm, held_out = said("loss"), said("grad_norm"), said("eval_loss")
        for name, value in (("loss", loss), ("grad_norm", norm), ("eval_loss", held_out)):
            if value is not None and not _possible(value):
                self.broken.append((update, name, float(value)))
        if held_out is not None:
            if _possible(held_out):
                groups = tuple(map(_number, said("eval_groups") or ()))
                groups = groups if all(map(math.isfinite, groups)) else ()
                epoch, chats = self.epoch_of(update), int(said("eval_chats") or 0)
                calls = said("eval_calls")
                self.evaluations.append(Evaluated(update, epoch, _number(held_out), groups, chats, calls))
            return False
        if loss is None:
            if (cut := Cut.of(row)) is not None and row.get("stage") != "start":
                self.cuts.append((update, cut))
            return False
        self.updates.append(update)
        self.epochs.append(_number(said("epoch")))
        self.losses.append(loss := _number(loss))
        self.grad_norms.append(norm := _number(norm))
        self.rates.append(_number(said("learning_rate")))
        self.speeds.append(_number(said("tokens_per_second")))
        self.memory.append(_number(said("memory")))
        self.tokens.append(_number(said("real_tokens")))
        if _possible(loss):
            self._finite[0].append(update)
            self._finite[1].append(loss)
        if loss == 0.0:
            self.zeros.append(update)
        self._watch(update, norm)
        if (skipped := said("skipped_updates")) is not None:
            self.skipped.append((update, int(skipped)))
        return True

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Take the rows of training that a log begins with, as `add` does each; returns how many they were."""
        count = next((i for i, row in enumerate(rows) if not _trained(row)), len(rows))
        rows = rows[:count]
        losses, norms = _column(rows, "loss"), _column(rows, "grad_norm")
        usual = (losses > 0) & (losses < math.inf) & (norms >= 0) & (norms < math.inf)
        if not usual.all() or any("skipped_updates" in row for row in rows):
            for row in rows:
                self.add(row)
            return count
        updates = [row["update"] for row in rows]
        self.updates.extend(updates)
        self._finite[0].extend(updates)
        self._finite[1].frombytes(losses.tobytes())
        self.losses.frombytes(losses.tobytes())
        self.grad_norms.frombytes(norms.tobytes())
        others = {"epoch": self.epochs, "learning_rate": self.rates, "tokens_per_second": self.speeds}
        for name, series in {**others, "memory": self.memory, "real_tokens": self.tokens}.items():
            series.frombytes(_column(rows, name).tobytes())
        for update, norm in zip(updates, norms.tolist(), strict=True):
            self._watch(update, norm)
        return count

    def _watch(self, update: int, norm: float) -> None:
        """Note a gradient norm above `SPIKE_FACTOR` times the median of those before, and out of their spread."""
        if not 0 < norm < math.inf:
            return
        calm, ordered = self._calm, self._ordered
        logarithm, n = math.log(norm), len(ordered)
        if n >= SPIKE_LEAST:
            above = logarithm - (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
            if above > SPIKE_LOG and above > SPIKE_SIGMA * mad_sigma(calm):
                self.spikes.append((update, math.exp(min(above, MOST_LOG))))
                return
        calm.append(logarithm)
        bisect.insort(ordered, logarithm)
        if n >= SPIKE_WINDOW:
            del ordered[bisect.bisect_left(ordered, calm.popleft())]

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

    def finite_losses(self) -> tuple[array[int], array[float]]:
        """Updates and losses of the rows whose loss is a number that a loss can be. The log's own, to be read."""
        return self._finite


def _trained(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of training."""
    return row.get("loss") is not None and row.get("eval_loss") is None


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> npt.NDArray[np.float64]:
    """One number of rows, as `_number` has it."""
    return np.array([math.nan if (value := row.get(name)) is None else value for row in rows], dtype=np.float64) + 0.0


def _number(value: Any) -> float:
    return math.nan if value is None else float(value) + 0.0  # -0.0 becomes 0.0, which is how it reads


def _possible(value: float) -> bool:
    """Whether a loss or a gradient norm can be this: finite, and not below 0."""
    return 0 <= value < math.inf


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
