"""Which evaluation of a run is the best one: the rule that training keeps an adapter by, and that reports show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe


@dataclass(slots=True)
class Best:
    """The best evaluation so far by `eval.best`, told one evaluation after the other.

    By "calls", more right answers are better, and of as many the lower loss; evaluations at which no calls were
    measured are passed over. update: that of the best one, 0 for the model before training; worse: evaluations since.
    kept: the update whose adapter is kept. That is the best one where it was trained; where nothing beat the model
    before training, the best of those that were, by the same rule; 0 before there is one.
    """

    by_calls: bool
    threshold: float = 0.0
    update: int = 0
    worse: int = 0
    kept: int = 0
    _least: tuple[float, float] = (math.inf, math.inf)  # the best's: (loss, 0), or by calls (-share right, loss)
    _kept_least: tuple[float, float] = (math.inf, math.inf)  # the same of the one that is kept

    @property
    def found(self) -> bool:
        return self._least[0] < math.inf

    @property
    def value(self) -> float:
        """The best evaluation's loss, or its share of right answers."""
        return -self._least[0] if self.by_calls else self._least[0]

    def state(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        least = {"least": list(self._least), "kept_least": list(self._kept_least)}
        return {"update": self.update, "worse": self.worse, "kept": self.kept, **least}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.update, self.worse = int(state["update"]), int(state["worse"])
        self._least = (float(state["least"][0]), float(state["least"][1]))
        # states that don't say were written when an adapter was kept only where it beat the model before training
        self.kept = int(state.get("kept", self.update))
        least = state.get("kept_least", self._least if self.kept else (math.inf, math.inf))
        self._kept_least = (float(least[0]), float(least[1]))

    def judge(self, metrics: Mapping[str, Any], update: int) -> bool | None:
        """Whether an evaluation is the best so far; None where it doesn't tell."""
        loss = metrics["eval_loss"]
        if self.by_calls and metrics.get("eval_calls") is None:
            return None
        found = (-metrics["eval_calls"], loss) if self.by_calls else (loss, 0.0)
        better = self._beats(found, self._least)
        if update and (better or (not self.update and self._beats(found, self._kept_least))):
            self._kept_least, self.kept = found, update
        if better:
            self._least, self.update, self.worse = found, update, 0
            return True
        self.worse += 1
        return False

    def _beats(self, found: tuple[float, float], least: tuple[float, float]) -> bool:
        tied = self.by_calls and found[0] == least[0] and found[1] < least[1]
        return found[0] < least[0] - self.threshold or tied


def best_by_log(recipe: Recipe, rows: Iterable[Mapping[str, Any]]) -> Best:
    """The best evaluation of a log, by the recipe's rule."""
    best = Best(recipe.eval.by_calls, recipe.eval.early_stopping_threshold)
    for row in rows:
        if row.get("eval_loss") is not None:
            best.judge(row, row["update"])
    return best
