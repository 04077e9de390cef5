"""Where memory has run out before: kept in the cache folder, so that the next run alike begins with the smaller cut.

ran-out.jsonl has an object a line: which way of training on which device with which versions, what did not fit, and
the cut that the run then went on with. What is planned for another way, device or version does not ask it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from toolkit.cache import cache_root
from toolkit.engines.measured import signature
from toolkit.engines.registry import versions
from toolkit.engines.setup import Setup
from toolkit.files import write_text
from toolkit.hardware import Hardware
from toolkit.models.families import find_shape
from toolkit.planning.budget import Budget
from toolkit.planning.cuts import Cut
from toolkit.planning.setup import card_of, setup_on
from toolkit.recipe.schema import Recipe
from toolkit.records import append_jsonl, read_jsonl

Count = Annotated[int, Field(ge=1, lt=2**40)]


@dataclass(frozen=True, slots=True)
class Case:
    """What decides whether so many tokens fit: `device`, `way` of training (model's sizes, engine, precision, adapter,
    recomputation) and `versions`, each as a person can read it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    device: str
    way: str
    versions: str

    @classmethod
    def of(cls, recipe: Recipe, setup: Setup, hardware: Hardware, checkpointed: int | None) -> Case:
        """`checkpointed`: layers that recompute by the plan's budget; None where it says nothing."""
        if hardware.gpu is None:
            device = f"{hardware.cpu}, {hardware.memory / 2**30:.0f} GiB"
        else:
            device = card_of(hardware.gpu).title
        recomputing = setup.checkpointing if checkpointed is None else f"{checkpointed} layers"
        rows = "packed rows" if setup.packed else f"rows of at most {recipe.train.max_length:,} tokens"
        way = (
            f"{signature(setup.shape)}; {setup.engine.name}, {setup.held} weights, {8 * setup.element} bits, "
            f"{setup.trainable:,} trained by {setup.optim}, dropout {setup.dropped}, recomputation {recomputing}, "
            f"{setup.products} products, filled {setup.filled}, dynamic {setup.dynamic}, recorded {setup.recorded}, "
            f"{'several ranks' if setup.ranks > 1 else 'one rank'}, {rows}"
        )
        known = versions()
        names = ("toolkit", *setup.engine.timed_with)
        return cls(device, way, ", ".join(f"{name} {known[name]}" for name in names if name in known))


def case_of(
    recipe: Recipe, engine: str, precision: str, hardware: Hardware, budget: Budget | None, ranks: int
) -> Case | None:
    """The case of a run; None where its model's sizes are not known, or where loading will say that nothing of it is
    adapted, and what it has."""
    shape = find_shape(recipe.model)
    if shape is None or not shape.lora_targets(recipe.lora.target_modules):
        return None
    setup = setup_on(recipe, shape, engine, precision, hardware.gpu, ranks)
    return Case.of(recipe, setup, hardware, budget.checkpointed if budget is not None else None)


@dataclass(frozen=True, slots=True)
class RanOut:
    """Memory ran out at a micro-batch of so many `rows` and `tokens`, padding included, in a `stage`; `cut` is what the
    run went on with."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    case: Case
    stage: str
    rows: Count
    tokens: Count
    cut: dict[str, Count | bool]


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a case: the smallest `cut`, and in words when and at what memory ran out last."""

    cut: Cut
    told: str

    def within(self, budget: Budget | None) -> Budget | None:
        """A budget of packed micro-batches, no larger than what fitted."""
        if budget is None or self.cut.tokens is None or self.cut.tokens >= budget.tokens:
            return budget
        return replace(budget, tokens=self.cut.tokens, reason=f"{self.told}: {self.cut.tokens:,} now")


_RAN_OUT = TypeAdapter(RanOut)


def store() -> Path:
    return cache_root() / "ran-out.jsonl"


def record(case: Case, date: str, row: Mapping[str, Any]) -> None:
    """Keep what a row of metrics.jsonl says of memory that ran out; `date` as YYYY-MM-DD."""
    tried = row["tried"]
    made = RanOut(date, case, row["stage"], tried["rows"], tried["tokens"], dict(row["memory_cut"]))
    append_jsonl(store(), [made])


def known(case: Case | None) -> Known | None:
    """What is known of a case; None where memory has not run out in it, or that was forgotten."""
    found = [made for made in _every() if made.case == case]
    if not found:
        return None
    smallest: dict[str, Any] = {}
    for field in fields(Cut):
        values = [made.cut[field.name] for made in found if made.cut.get(field.name)]
        if values:
            smallest[field.name] = True if field.name == "recompute" else min(values)
    last = found[-1]
    training = [made for made in found if made.stage == "training"]
    if training:
        last = training[-1]
    size = f"{last.tokens:,} tokens" if last.cut.get("tokens") else f"{last.rows:,} rows"
    if last.rows == 1:
        size = f"a row of {last.tokens:,} tokens"
    return Known(Cut(**smallest), f"ran out of memory at {size} on {last.date}")


def forget(case: Case) -> int:
    """Forget what is known of a case; returns how many times memory had run out in it."""
    every = list(_every())
    kept = [made for made in every if made.case != case]
    if len(kept) < len(every):
        write_text(store(), "".join(json.dumps(asdict(made)) + "\n" for made in kept))
    return len(every) - len(kept)


def _every() -> Iterator[RanOut]:
    for row in read_jsonl(store()):
        try:
            yield _RAN_OUT.validate_json(json.dumps(row))
        except ValidationError:
            continue  # damaged, or written by another version
