"""A time budget (`train.max_minutes`): the first updates are timed, and the run is fitted to the time that is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from toolkit.planning.steps import EARLY, LEAST, TIMED, Updates, fitted, fitting
from toolkit.ranks import here
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Fit:
    """Updates that fit, seconds of one, and whether the budget holds what is left of them."""

    updates: Updates
    seconds: float
    held: bool

    def line(self, minutes: float) -> str:
        """What the terminal says of it."""
        total, budget = self.updates.total, f"{minutes:g} minute{'' if minutes == 1 else 's'}"
        if not self.held:
            return f"{total:,} updates take longer than {budget}: {self.seconds:.2f} s an update{self.updates.caution}"
        whole = "all " if self.updates.planned is None else ""
        return f"{whole}{total:,} updates fit into {budget}: {self.seconds:.2f} s an update{self.updates.caution}"


class TimeBudget(TrainerCallback):
    """Times updates up to number `TIMED`, or fewer where so many don't fit, and then tells the trainer how many there
    are to be.

    tokens: of an update, in the mean over the run; the seconds of one go by its tokens, and by the median over the
    timed ones but the first, so that one that waits for something (a compilation) says nothing of the others. What
    time the start has taken counts, with the evaluation before the first update. decoding: seconds that each
    evaluation takes beside what that one took. told: handed the fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        updates: Updates,
        tokens: float,
        told: Callable[[Fit], None],
        *,
        decoding: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        assert recipe.train.max_minutes is not None
        self.recipe, self.updates, self.tokens = recipe, updates, tokens
        self.seconds = 60 * recipe.train.max_minutes
        self.told, self.decoding, self.clock = told, decoding, clock or now
        self.trainer: Any = None
        self.begun = self.step_begun = 0.0
        self.evaluation = 0.0
        self.counted = 0  # real tokens of the updates before
        self.paces: list[float] = []  # seconds a real token, of each timed update
        # shorter runs can't be fitted, and one that was fitted already goes by that
        self.wanted = updates.total > LEAST and recipe.train.fitted_steps is None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = self.clock()
        self.wanted = self.wanted and state.global_step < TIMED

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.global_step:
            self.evaluation = self.clock() - self.begun

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_begun = self.clock()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # before the schedule gives the next update its rate
        if not self.wanted:
            return
        wait_for_gpu()
        tokens = self.trainer.real_tokens
        self.paces.append((self.clock() - self.step_begun) / max(1, tokens - self.counted))
        self.counted = tokens
        made = state.global_step + 1
        if made == TIMED or (made in (LEAST, EARLY) and here().first(lambda: self._short(made))):
            self.wanted = False
            fit = here().first(lambda: self._fit(made))  # whose clock decides, for all ranks
            state.max_steps = fit.updates.total
            self.trainer.updates = fit.updates
            self.told(fit)

    def _short(self, made: int) -> bool:
        """Whether the next number of updates after which it could be fitted takes too long, even where all are as fast
        as the fastest so far: a compilation is no reason to end early."""
        after = min(EARLY if made == LEAST else TIMED, self.updates.total)
        return self._fitting(made, self._left(), min(self.paces) * self.tokens) < after

    def _fit(self, made: int) -> Fit:
        update, left = statistics.median(self.paces[1:] or self.paces) * self.tokens, self._left()
        total = self._fitting(made, left, update)
        held = left >= (update if total > made else 0)
        return Fit(fitted(self.recipe.train, self.updates, total), update, held)

    def _left(self) -> float:
        return self.seconds - (self.clock() - self.begun)

    def _fitting(self, made: int, left: float, update: float) -> int:
        return fitting(self.updates, left, update, self.evaluation + self.decoding, self._every(), made)

    def _every(self) -> int | None:
        """Updates between evaluations; None where there is none."""
        if self.trainer.eval_dataset is None:
            return None
        steps = self.recipe.eval.eval_steps
        return self.updates.per_epoch if steps == "epoch" else steps


def now() -> float:
    return time.perf_counter()


def wait_for_gpu() -> None:
    """Until the GPU has done all that it was handed, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
