"""What claims are checked against: the recipe, the model's shape, bench results, the token table, a finished run; and
the checks that only a measurement can settle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.bench_results import Arm, Results
from toolkit.engines.registry import PLAIN
from toolkit.models.shape import ModelShape
from toolkit.planning.cards import CARDS
from toolkit.planning.memory import full_memory
from toolkit.planning.setup import setup_of
from toolkit.recipe.schema import LoraSection, Recipe
from toolkit.reports.bench_prediction import predicted

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


GIB = 2**30
MEMORY = 0.20  # "about 5 GB" may be 4 to 6


@dataclass(frozen=True, slots=True)
class Known:
    """Seconds of an update on a T4, and how they are known."""

    seconds: float
    how: str
    measured: bool


def t4_update(evidence: Evidence, name: str = "unsloth") -> Known | None:
    """The update time of the product's default on a T4: measured on one, or predicted from a run under its cap."""
    for results, arm in evidence.arms(name, profile="t4"):
        seconds = results.seconds(name)
        if arm.status != "measured" or seconds is None:
            continue
        if results.run["card"] == "t4":
            return Known(seconds.median, f"measured ({where(results)}):", True)
        if (prediction := predicted(results, name)) is not None:
            how = f"predicted from {where(results)} ({prediction.least:.1f} to {prediction.most:.1f} s):"
            return Known(prediction.seconds, how, False)
    for results, arm in evidence.arms(name, profile="this"):
        seconds = results.seconds(name)
        if results.run["card"] == "t4" and arm.status == "measured" and seconds is not None:
            return Known(seconds.median, f"measured ({where(results)}):", True)
    return None


def update_time(evidence: Evidence) -> Finding:
    known = t4_update(evidence)
    if known is None:
        return evidence.unmeasured("--profile t4 --shape real")
    found = f"{known.how} {known.seconds:.1f} s"
    if 2 <= known.seconds <= 3:
        return Finding("holds", found)
    return Finding("does not hold", found, "2.5 s needs shorter chats: time grows with tokens")


def peak_gb(results: Results, arm: Arm) -> float:
    """An arm's peak memory, in GB."""
    return (results.peak(arm.variant) or 0) / GB


def planned_full(evidence: Evidence, tokens: int = 8192) -> float:
    """The planner's peak for full fine-tuning in 16 bits with fp32 states, bytes."""
    setup = setup_of(Recipe(lora=LoraSection(lora_dropout=0.0)), evidence.shape, PLAIN.name, "bf16", cuda=True)
    return full_memory(setup, 4, tokens // 4, round(0.114 * tokens), weights="mixed").peak


def full_total(evidence: Evidence) -> Finding:
    measured = [(r, a) for r, a in evidence.arms("full", profile="this") if a.status == "measured"]
    if not measured:
        missing = evidence.unmeasured("--profile this --variants full")
        found = f"{missing.found}; the planner says {planned_full(evidence) / GB:.1f} GB for 4 x 2048 tokens"
        return Finding(missing.verdict, found, checkable=missing.checkable)
    peaks = [f"{peak_gb(r, a):.1f} GB ({where(r)})" for r, a in measured]
    others = [
        f"{name}: {peak_gb(r, a):.1f} GB"
        for name in ("full-fp32", "full-adam8")
        for r, a in evidence.arms(name, profile="this", shape=measured[0][0].run["shape"])
        if a.status == "measured"
    ]
    found = ", ".join(peaks)
    if any(near(peak_gb(r, a), 24, 0.10) for r, a in measured):
        conditions = "weights and gradients are 16-bit, Adam's states fp32, with checkpointing and a chunked loss"
        return Finding("holds if", found, "; ".join([conditions, *others]))
    return Finding("does not hold", found, "; ".join(others))


LORA_VARIANTS = ("unsloth", "unsloth-4bit", "unsloth-nockpt", "peft", "peft-4bit", "peft-nockpt", "peft-logits")


def lora_memory(evidence: Evidence) -> Finding:
    """Peak of each variant with real lengths if measured, else fixed; the process adds its context."""
    seen = [
        (name, r, a)
        for name in LORA_VARIANTS
        for r, a in [evidence.arm(name, profile="this") or (None, None)]
        if r is not None and a is not None and a.status == "measured"
    ]
    if not seen:
        return evidence.unmeasured("--profile this --shape real")
    within = [name for name, r, a in seen if near(peak_gb(r, a), 5, MEMORY)]
    found = "; ".join(f"{name} {peak_gb(r, a):.1f} GB" for name, r, a in seen) + f" ({where(seen[0][1])})"
    if len(within) == len(seen):
        return Finding("holds", found)
    if within:
        return Finding("holds if", found, f"trained as {', '.join(within)}")
    return Finding("does not hold", found)


def lora_fits(evidence: Evidence) -> Finding:
    """Under a T4's cap, the process's own memory counted too."""
    card = CARDS["t4"]
    seen: dict[str, bool] = {}
    shown = []
    for name in LORA_VARIANTS:
        for results, arm in evidence.arms(name, profile="t4"):
            fits = arm.status == "measured" and (arm.driver or results.peak(name) or 0) <= card.memory
            seen[name] = seen.get(name, True) and fits
            size = (arm.driver or results.peak(name) or 0) / GIB
            shown.append(
                f"{name} {results.run['shape']}: {f'{size:.1f} GiB' if arm.status == 'measured' else arm.status}"
            )
    if not seen:
        return evidence.unmeasured("--profile t4 --shape real")
    found = f"{'; '.join(shown)} (of {card.gib} GiB)"
    if all(seen.values()):
        return Finding("holds", found)
    fitting = [name for name, fits in seen.items() if fits]
    if fitting:
        return Finding("holds if", found, f"trained as {', '.join(fitting)}")
    return Finding("does not hold", found)


def checkpointing(evidence: Evidence) -> Finding:
    """8 GB without, 5 GB with, about 40% saved: the same engine, shape and profile with and without."""
    seen = []
    for name in ("unsloth", "peft", "unsloth-4bit", "peft-4bit"):
        for results, arm in evidence.arms(name, profile="this"):
            without = results.arms.get(f"{name}-nockpt")
            if arm.status == "measured" and without is not None and without.status == "measured":
                seen.append((name, results, peak_gb(results, without), peak_gb(results, arm)))
    if not seen:
        return evidence.unmeasured("--profile this --variants 'unsloth,unsloth-nockpt' --shape real")
    found = "; ".join(
        f"{name} {r.run['shape']}: {before:.1f} to {after:.1f} GB ({1 - after / before:.0%} less)"
        for name, r, before, after in seen
    )
    alike = [
        f"{name} at {r.run['shape']}"
        for name, r, before, after in seen
        if near(before, 8, MEMORY) and near(after, 5, MEMORY) and 0.3 <= 1 - after / before <= 0.5
    ]
    growing = "what is saved grows with the tokens of a micro-batch"
    if len(alike) == len(seen):
        return Finding("holds", found)
    if alike:
        return Finding("holds if", found, f"{', '.join(alike)}; {growing}")
    return Finding("does not hold", found, growing)


def four_at_once(evidence: Evidence) -> Finding:
    """All 16 chats of an update as one micro-batch: under a T4's cap, else the peak on another card against the cap."""
    names = ("unsloth-1x", "peft-1x")
    cap = CARDS["t4"].memory
    seen = [(r, a) for name in names for r, a in evidence.arms(name, profile="t4")]
    note = ""
    if not seen:
        seen = [(r, a) for name in names for r, a in evidence.arms(name, profile="this")]
        own = [(r, a) for r, a in seen if r.run["card"] == "t4"]
        note = "" if own else f"measured without a T4's cap of {cap / GIB:.1f} GiB"
        seen = own or [(r, a) for r, a in seen if a.status == "measured"]
    if not seen:
        return evidence.unmeasured("--profile t4 --shape real --variants 'unsloth-1x'")
    found = "; ".join(
        f"{a.batch} at once, {a.variant} {r.run['shape']}: "
        + (f"{(r.peak(a.variant) or 0) / GIB:.1f} GiB" if a.status == "measured" else a.status)
        for r, a in seen
    )
    short = [
        f"{a.variant} {r.run['shape']}" for r, a in seen if a.status != "measured" or (r.peak(a.variant) or 0) > cap
    ]
    if len(short) == len(seen):
        return Finding("holds", found, note)
    if not short:
        return Finding("does not hold", found, note)
    return Finding("holds if", found, "; ".join(part for part in (f"trained as {', '.join(short)}", note) if part))


def accumulation(evidence: Evidence) -> Finding:
    """The same chats as several micro-batches and as one; slower means over 5%, beyond the spread of repeats."""
    seen = []
    for name in ("unsloth", "peft"):
        for results, arm in evidence.arms(name):
            one, many = results.seconds(f"{name}-1x"), results.seconds(name)
            if one is not None and many is not None:
                whole = results.arms[f"{name}-1x"]
                seen.append((name, results, arm, whole, many, one))
    if not seen:
        return evidence.unmeasured("--profile this --shape real --variants 'unsloth,unsloth-1x'")
    found = "; ".join(
        f"{name} {where(r)}: {a.batch}x{a.accumulation} {many.median:.2f} s, "
        f"{w.batch}x{w.accumulation} {one.median:.2f} s ({many.median / one.median - 1:+.0%})"
        for name, r, a, w, many, one in seen
    )
    slower = [f"{name}, {where(r)}" for name, r, _, _, many, one in seen if many.median > 1.05 * one.median]
    same = "the passes are smaller, not more work: the total FLOPs are the same but for padding"
    if len(slower) == len(seen):
        return Finding("holds", found, same)
    if slower:
        return Finding("holds if", found, f"{'; '.join(slower)}. {same}")
    return Finding("does not hold", found, same)


def lengths(evidence: Evidence) -> Finding:
    table = evidence.table
    if table is None:
        missing = "run toolkit data build first" if evidence.tokenizer_here else "needs the model's tokenizer"
        return Finding("not checked here", missing, checkable=evidence.tokenizer_here)
    under = float((table.lengths < 1000).mean())
    longest = int(table.meta.get("longest_row", table.lengths.max()))
    cut = int(table.meta.get("cut_rows", (table.lengths >= 2048).sum())) if longest > 2048 else 0
    found = f"{under:.1%} of {table.n_rows:,} rows are under 1,000 tokens, the longest has {longest:,}"
    if under > 0.5 and longest <= 2048:
        return Finding("holds", found, "of this recipe's chats")
    if under > 0.5:
        return Finding("holds if", found, f"{cut:,} rows of 2,048 or more are left out of account")
    return Finding("does not hold", found, "of this recipe's chats")


def first_loss(evidence: Evidence) -> Finding:
    guessing = math.log(evidence.shape.vocab_size)
    note = f"guessing among {evidence.shape.vocab_size:,} tokens would be {guessing:.2f}"
    return _loss(evidence, "first_loss", 2.5, 3.5, note)


def last_loss(evidence: Evidence) -> Finding:
    return _loss(evidence, "last_loss", 0.8, 1.2, "")


def _loss(evidence: Evidence, key: str, low: float, high: float, note: str) -> Finding:
    value = (evidence.run or {}).get(key)
    if value is None:
        return Finding("not checked here", "needs a finished run of this recipe: --run FOLDER", note, checkable=False)
    found = f"{value:.3f}" + (f", {note}" if note else "")
    return Finding("holds" if low <= value <= high else "does not hold", found, "of this recipe's chats")
