"""results.jsonl: everything a bench measured, one JSON object a line.

row = "run"     once: date, command, versions, hardware, profile, shape, recipe, settings
row = "arm"     one a variant: what loaded, memory by part, how it ended, what the planner had said
row = "turn"    one a variant and turn: peak memory, the matrix product measured beside it
row = "update"  one an update, warm-up included (turn 0)
row = "gate"    one a variant and gate
row = "kernel"  one a variant and kernel, where they were asked for
Bytes, seconds and FLOP/s throughout.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from toolkit import jsons
from toolkit.errors import InputError
from toolkit.files import write_text

Status = Literal["measured", "out of memory", "failed"]
FILE = "results.jsonl"
IDLE = "card idle"  # the kind of the time that no kernel covers
T = TypeVar("T")


@dataclass(slots=True)
class Update:
    """One optimizer step. `settle`: the first of a turn, when freed memory is taken again; not timed.

    Loss and gradient norm are None where they were not finite.
    """

    variant: str
    turn: int
    number: int
    seconds: float
    loss: float | None
    grad_norm: float | None
    real_tokens: int
    padded_tokens: int
    settle: bool = False
    skipped: bool = False


@dataclass(slots=True)
class Turn:
    """One stretch of updates. `product`: FLOP/s of a large matrix product in the training precision, just before."""

    variant: str
    turn: int
    allocated: int
    reserved: int
    product: float


@dataclass(slots=True)
class Gate:
    variant: str
    name: str
    passed: bool
    detail: str


@dataclass(slots=True)
class Kernel:
    """One kernel of a variant: `calls` and `seconds` an update. `name` may be cut."""

    variant: str
    name: str
    kind: str
    calls: float
    seconds: float


@dataclass(slots=True)
class Arm:
    """A variant as it ran. `parts` are static bytes by part; `driver` is the process's memory as the driver sees it.

    `stage` and `message` say where and how it ended when `status` is not "measured". `probe` holds the loss of single
    trained tokens before training, `chats` the hashes of the first chats in the order they were trained on.
    `checkpointed` modules have checkpointing on, and `checkpointed_wanted` is how many layers the planner wanted it in,
    where it was asked; `token_budget` is that of packed micro-batches; compiling `shapes` lengths took
    `compile_seconds` before the first update, `recorded` lengths were replayed as CUDA graphs and `not_recorded` says
    why no more were. `widest` is the (rows, tokens) of the largest micro-batch; `flops` are an update's and `width` the
    length of equal rows that cost attention as much as its own, 0 where that was not kept.
    """

    variant: str
    title: str
    engine: str
    trained: str
    held: str
    four_bit: bool
    full_logits: bool
    status: Status = "failed"
    stage: str = ""
    message: str = ""
    precision: str = ""
    attention: str = ""
    dropout: float = 0.0
    checkpointing: str = ""
    checkpointed: int = 0
    checkpointed_wanted: int | None = None
    token_budget: int | None = None
    compile_seconds: float = 0.0
    shapes: int = 0
    recorded: int = 0
    not_recorded: str = ""
    batch: int = 0
    accumulation: int = 0
    load_seconds: float = 0.0
    warmup_seconds: float = 0.0
    trainable: int = 0
    expected_trainable: int = 0
    total: int = 0
    patched: dict[str, int] = field(default_factory=dict)
    expected_layers: int = 0
    moved: bool = False
    parts: dict[str, int] = field(default_factory=dict)
    driver: int | None = None
    probe: list[float] = field(default_factory=list)
    chats: list[str] = field(default_factory=list)
    widest: list[int] = field(default_factory=list)
    flops: float = 0.0
    width: float = 0.0
    predicted_memory: float | None = None
    predicted_seconds: float | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Results:
    run: dict[str, Any]
    arms: dict[str, Arm] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        return bool(self.run["hardware"].get("gpu"))

    @property
    def device(self) -> str:
        gpu = self.run["hardware"].get("gpu")
        return str(gpu["name"] if gpu else self.run["hardware"]["cpu"])

    def timed(self, variant: str) -> list[Update]:
        """Updates after the warm-up that count for time."""
        return [u for u in self.updates if u.variant == variant and u.turn > 0 and not u.settle]

    def early(self, variant: str) -> list[Update]:
        """All updates in order, warm-up first: what the loss gate compares."""
        return sorted((u for u in self.updates if u.variant == variant), key=lambda u: u.number)

    def seconds(self, variant: str) -> Spread | None:
        """Update time over all turns; None where nothing was timed."""
        return spread([u.seconds for u in self.timed(variant)])

    def throughput(self, variant: str) -> float | None:
        """Real tokens a second: tokens that are not padding over the time of all timed updates."""
        timed = self.timed(variant)
        seconds = sum(u.seconds for u in timed)
        return sum(u.real_tokens for u in timed) / seconds if seconds else None

    def peak(self, variant: str) -> int | None:
        """torch's peak allocated bytes over all turns (on a CPU: the process's peak resident bytes)."""
        return max((t.allocated for t in self.turns if t.variant == variant), default=None)

    def reserved(self, variant: str) -> int | None:
        return max((t.reserved for t in self.turns if t.variant == variant), default=None)

    def product(self, variant: str) -> float | None:
        """FLOP/s of the matrix product beside this variant, median over its turns."""
        found = [t.product for t in self.turns if t.variant == variant and t.product]
        return statistics.median(found) if found else None

    def utilisation(self, variant: str) -> float | None:
        """Share of the measured matrix product's rate that training reaches, padding counted as work."""
        seconds, product, flops = self.seconds(variant), self.product(variant), self.arms[variant].flops
        return flops / seconds.median / product if seconds and product and flops else None

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Seconds of kernels an update, by kind and by variant; kinds in the order of their largest share."""
        found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for kernel in self.kernels:
            found[kernel.kind][kernel.variant] += kernel.seconds
        order = sorted(found, key=lambda kind: (kind == IDLE, -max(found[kind].values())))
        return {kind: dict(found[kind]) for kind in order}

    def failed_gates(self, variant: str | None = None) -> list[Gate]:
        return [g for g in self.gates if not g.passed and variant in (None, g.variant)]

    @property
    def ok(self) -> bool:
        """No gate failed and no variant failed; running out of memory is a result."""
        return not self.failed_gates() and all(arm.status != "failed" for arm in self.arms.values())

    def save(self, path: Path) -> None:
        rows: list[dict[str, Any]] = [{"row": "run", **self.run}]
        listed: tuple[tuple[str, Iterable[Any]], ...] = (
            ("arm", self.arms.values()),
            ("turn", self.turns),
            ("update", self.updates),
            ("gate", self.gates),
            ("kernel", self.kernels),
        )
        rows += [{"row": name, **asdict(item)} for name, items in listed for item in items]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a results file, or the one in a folder. Raises `InputError` with the line that is wrong."""
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"{path}: no such file; wanted a {FILE} that `toolkit bench` wrote")
        results: Results | None = None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = jsons.loads(line)
                kind = row.pop("row")
                if kind == "run":
                    results = cls(row)
                elif results is None:
                    raise ValueError("the first row is not the run's")
                else:
                    results._add(kind, row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path}:{number}: not a row of `toolkit bench` ({error})") from None
        if results is None:
            raise InputError(f"{path}: is empty")
        return results

    def _add(self, kind: str, row: dict[str, Any]) -> None:
        match kind:
            case "arm":
                arm = _made(Arm, row)
                self.arms[arm.variant] = arm
            case "turn":
                self.turns.append(_made(Turn, row))
            case "update":
                self.updates.append(_made(Update, row))
            case "gate":
                self.gates.append(_made(Gate, row))
            case "kernel":
                self.kernels.append(_made(Kernel, row))
            case _:
                raise ValueError(f"unknown row {kind!r}")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of repeats, and their least and greatest."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def spread(values: list[float]) -> Spread | None:
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def _made(kind: type[T], row: dict[str, Any]) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in row.items() if key in known})
