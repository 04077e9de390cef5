"""What claims are checked against: the recipe, the model's shape, bench results, the token table, a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.bench_results import Arm, Results
from toolkit.models.shape import ModelShape
from toolkit.recipe.schema import Recipe

Verdict = Literal["holds", "holds if", "does not hold", "not checked here"]
GB = 1e9  # the chapter counts in these


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `conditions`: when it holds, or what else was seen. `checkable`: this machine could have
    checked it; only of interest when it was not."""

    verdict: Verdict
    found: str
    conditions: str = ""
    checkable: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """`said`: the chapter's words in short. `check` derives or measures."""

    name: str
    said: str
    check: Callable[[Evidence], Finding]


@dataclass(slots=True)
class Evidence:
    """`results`: benches of this very model (by its number of parameters), newest first. `gpu`: a CUDA GPU is here.

    `table`: the recipe's token table. `tokenizer_here`: it could be built. `run`: a finished run's summary.
    """

    recipe: Recipe
    shape: ModelShape
    results: Sequence[Results] = ()
    gpu: bool = False
    table: Any = None
    tokenizer_here: bool = False
    run: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def arms(self, name: str, *, profile: str | None = None, shape: str | None = None) -> Iterator[tuple[Results, Arm]]:
        """Every run's arm of that name that was measured or ran out of memory, real lengths before fixed ones."""
        for real in (True, False):
            for results in self.results:
                arm = results.arms.get(name)
                if arm is None or arm.status == "failed" or (results.run["shape"] == "real") != real:
                    continue
                if profile in (None, results.run["profile"]) and shape in (None, results.run["shape"]):
                    yield results, arm

    def arm(self, name: str, *, profile: str | None = None, shape: str | None = None) -> tuple[Results, Arm] | None:
        return next(self.arms(name, profile=profile, shape=shape), None)

    def unmeasured(self, how: str) -> Finding:
        """Not checked for want of a measurement that `toolkit bench HOW` makes on a GPU."""
        if not self.gpu:
            return Finding("not checked here", "needs a CUDA GPU, or --results of one", checkable=False)
        return Finding("not checked here", f"nothing measured yet: toolkit bench {how}")


def near(value: float, claimed: float, tolerance: float) -> bool:
    """Whether `value` is within a relative `tolerance` of what was claimed."""
    return abs(value / claimed - 1) <= tolerance


def where(results: Results) -> str:
    """A run's shape and card, in words."""
    run = results.run
    imposed = f" as a {run['profile']}" if run.get("cap") else ""
    return f"{run['shape']}, {results.device}{imposed}"
