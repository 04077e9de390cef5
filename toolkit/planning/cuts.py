"""How micro-batches are cut smaller once memory has run out: what is tried, in which order, and how it is told.

The update keeps its chats and its loss, which is summed over all trained tokens whatever pieces they are in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Stage = Literal["start", "training", "evaluation"]  # start: by what is known of earlier runs
KEY = "memory_cut"  # of a row of metrics.jsonl


@dataclass(frozen=True, slots=True)
class Cut:
    """At most so many `tokens` in a packed micro-batch, or `rows` in a padded one; None: as the recipe and the plan
    have it. `recompute`: all layers do. `eval_tokens`, `eval_rows`: of a batch of held-out chats."""

    tokens: int | None = None
    rows: int | None = None
    recompute: bool = False
    eval_tokens: int | None = None
    eval_rows: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Cut | None:
        """What a row of metrics.jsonl says of a cut; None where it says nothing."""
        said = row.get(KEY)
        if not isinstance(said, dict):
            return None
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in said.items() if name in names})

    def row(self, update: int, stage: Stage) -> dict[str, Any]:
        """The row of metrics.jsonl about a cut that was made in an update, which is made again with it."""
        return {"update": update, KEY: {name: value for name, value in asdict(self).items() if value}, "stage": stage}

    def smaller(self, stage: Stage, rows: int, tokens: int, *, packed: bool, may_recompute: bool) -> Cut | None:
        """The next cut after a micro-batch of so many rows and tokens did not fit; None where nothing is left.

        Half of it first: that costs launches. Where it is one row already, all layers recompute.
        """
        if rows > 1:
            size, half = ("tokens", tokens // 2) if packed else ("rows", rows // 2)
            name = size if stage == "training" else f"eval_{size}"
            smaller: dict[str, Any] = {name: half}  # than before, as no micro-batch of several rows was larger
            return replace(self, **smaller)
        if stage == "training" and may_recompute and not self.recompute:
            return replace(self, recompute=True)
        return None

    def and_of(self, other: Cut) -> Cut:
        """The cut that is no larger than either."""
        mine, its = asdict(self), asdict(other)
        sizes = {name: min(filter(None, (mine[name], its[name])), default=None) for name in mine if name != "recompute"}
        return Cut(**sizes, recompute=self.recompute or other.recompute)

    @property
    def whole(self) -> str:
        """All that it says, in words."""
        parts = [
            f"{where} of at most {getattr(self, prefix + name):,} {name}"
            for prefix, where in (("", "micro-batches"), ("eval_", "held-out batches"))
            for name in ("tokens", "rows")
            if getattr(self, prefix + name)
        ]
        return ", ".join([*parts, *(["all layers recompute"] if self.recompute else [])])

    def told(self, before: Cut) -> str:
        """What it changes against another, in words."""
        if self.recompute and not before.recompute:
            return "all layers recompute what backward needs, from now on"
        for name in ("tokens", "rows"):
            for prefix, where in (("", "micro-batches"), ("eval_", "held-out batches")):
                now, then = getattr(self, prefix + name), getattr(before, prefix + name)
                if now != then:
                    return f"{where} of at most {now:,} {name} from now on"
        return "nothing"
