"""Numbers of a log and of the same updates made again: how far apart they may be, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.words import counted

Verdict = Literal["equal", "within", "different"]
NAMES = {"eval_loss": "held-out loss", "loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
RATE = 1e-9  # relative: a rate is computed from the recipe alone, in float64


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart two numbers may be, relative to the larger; `why` says what makes them differ at all."""

    loss: float
    grad_norm: float
    why: str

    def of(self, name: str) -> float:
        return {"grad_norm": self.grad_norm, "learning_rate": min(self.loss, RATE)}.get(name, self.loss)

    def __str__(self) -> str:
        if not self.loss:
            return f"equal to the last bit: {self.why}"
        return f"losses within {self.loss:.3%} of each other, gradient norms within {self.grad_norm:.0%}: {self.why}"


def tolerance_for(*, same: bool, gpu: bool, precision: str, quantized: bool) -> Tolerance:
    """Bit-equal on a CPU where nothing differs. docs/reliability.md has what was measured for the others."""
    if same and not gpu:
        return Tolerance(0.0, 0.0, "the same CPU, threads and versions")
    why = "the same GPU and versions, whose kernels sum in any order" if same else "not all is as it was"
    if precision == "fp32" and not quantized:
        return Tolerance(1e-4, 1e-2, why)
    return Tolerance(2e-2, 2e-1, f"{why}, in {'4 bits' if quantized else precision}")


@dataclass(frozen=True, slots=True)
class Number:
    """One number of the log, and what it came to now. `name`: its key in metrics.jsonl."""

    update: int
    name: str
    then: float
    now: float

    @property
    def equal(self) -> bool:
        return self.then == self.now

    @property
    def difference(self) -> float:
        """Relative to the larger of the two; infinite where one of them is not a finite number."""
        if self.equal:
            return 0.0
        larger = max(abs(self.then), abs(self.now))
        apart = abs(self.then - self.now) / larger if larger else 0.0
        return apart if math.isfinite(apart) else math.inf

    def fits(self, tolerance: Tolerance) -> bool:
        return self.difference <= tolerance.of(self.name)

    def told(self) -> str:
        """`held-out loss 3.1415 then, the same now`."""
        now = "the same now" if self.equal else f"{self.now:.9g} now, {self.difference:.1e} apart"
        return f"{NAMES[self.name]} {self.then:.9g} then, {now}"


def numbers_of(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Number]:
    """What both of two rows of an update say."""
    both = [name for name in NAMES if then.get(name) is not None and now.get(name) is not None]
    return [Number(int(then["update"]), name, float(then[name]), float(now[name])) for name in both]


def verdict_of(numbers: Sequence[Number], tolerance: Tolerance) -> Verdict:
    if not all(number.fits(tolerance) for number in numbers):
        return "different"
    return "equal" if all(number.equal for number in numbers) else "within"


def first_updates(count: int) -> str:
    """`the first update`, or `the first 5 updates`."""
    return "the first update" if count == 1 else f"the first {counted(count, 'update')}"


def sentence(
    numbers: Sequence[Number], tolerance: Tolerance, updates: int, why: Callable[[int], str] = lambda update: ""
) -> str:
    """The verdict in words; `why` knows what makes an update another, if anything does."""
    worst = max(numbers, key=lambda number: number.difference)
    count = f"{counted(len(numbers), 'number')} of {first_updates(updates)}"
    are = "is" if len(numbers) == 1 else "are"
    match verdict_of(numbers, tolerance):
        case "equal":
            return f"verified: {count} {are} equal to the last bit"
        case "within":
            return f"verified: {count} {are} within the tolerance, {worst.difference:.1e} apart at most"
    first = next(number for number in numbers if not number.fits(tolerance))
    allowed = tolerance.of(first.name)
    wanted = "wanted the same to the last bit" if not allowed else f"wanted within {allowed:g} of each other, relative"
    told = [f"not the same run: update {first.update}: {first.told()}", wanted, why(first.update)]
    return "; ".join(part for part in told if part)
