"""What was planned and what was then measured, kept so that a plan can say how far off earlier ones were."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from toolkit.cache import cache_root
from toolkit.records import append_jsonl, read_jsonl

FORMULA = 2  # goes up with every change to how time or memory are predicted: errors of older ones say nothing


@dataclass(frozen=True, slots=True)
class Pair:
    """One variant that `toolkit bench` measured. Memory in bytes, as torch counts it; seconds of an update.

    `engine` is unsloth, peft, compiled or full; `card` a name of `toolkit.planning.cards`, or cpu. `formula` says by
    which formulas it was predicted.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    date: str
    card: str
    engine: str
    variant: str
    shape: str
    model: str
    predicted_memory: float
    measured_memory: Annotated[float, Field(gt=0)]
    predicted_seconds: float | None
    measured_seconds: Annotated[float, Field(gt=0)]
    formula: int


@dataclass(frozen=True, slots=True)
class PastError:
    """Median and greatest relative error of past predictions (predicted / measured - 1, without sign) and how many.

    Seconds are None where no time was predicted.
    """

    count: int
    memory: float
    memory_worst: float
    seconds: float | None
    seconds_worst: float | None

    def __str__(self) -> str:
        memory = f"memory {self.memory:.0%} off in the median, {self.memory_worst:.0%} at worst"
        if self.seconds is None or self.seconds_worst is None:
            return f"{memory} ({self.count} measured)"
        return f"{memory}; time {self.seconds:.0%}, {self.seconds_worst:.0%} ({self.count} measured)"


_PAIR = TypeAdapter(Pair)


def store() -> Path:
    return cache_root() / "calibration.jsonl"


def record(pairs: Iterable[Pair]) -> None:
    """Add pairs to the store, a JSON object a line."""
    append_jsonl(store(), pairs)


def past_error(engine: str, card: str) -> PastError | None:
    """How far off plans for this engine and card were, the latest measurement of each variant, shape and model."""
    latest: dict[tuple[str, str, str], Pair] = {}
    for row in read_jsonl(store()):
        try:
            pair = _PAIR.validate_json(json.dumps(row))
        except ValidationError:
            continue  # damaged, or written by another version
        if (pair.engine, pair.card, pair.formula) == (engine, card, FORMULA):
            latest[pair.variant, pair.shape, pair.model] = pair
    return error_of(latest.values())


def error_of(pairs: Iterable[Pair]) -> PastError | None:
    """The errors of some pairs; None for none."""
    pairs = list(pairs)
    if not pairs:
        return None
    memory = [abs(pair.predicted_memory / pair.measured_memory - 1) for pair in pairs]
    seconds = [abs(p.predicted_seconds / p.measured_seconds - 1) for p in pairs if p.predicted_seconds is not None]
    return PastError(
        count=len(pairs),
        memory=statistics.median(memory),
        memory_worst=max(memory),
        seconds=statistics.median(seconds) if seconds else None,
        seconds_worst=max(seconds, default=None),
    )
