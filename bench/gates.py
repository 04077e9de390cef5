"""What must be true of a variant before its figures mean anything. Each gate can fail; tests make each of them fail."""

from __future__ import annotations

import math
from collections.abc import Iterator

from toolkit.bench_results import Arm, Gate, Results
from toolkit.engines import ENGINES

FIRST_UPDATES = 4
# Relative differences of an update's loss. The first update comes before anything was learned: all variants see the
# same weights and, because adapters begin at zero, dropout changes nothing. 16-bit products in another order differ by
# some 0.2% there. Later updates also differ by dropout and by rounding that training carries on.
FIRST_LOSS, LATER_LOSS = 0.01, 0.05
# Root mean square difference of single tokens' losses before training, by the coarser precision of the two
PROBE = {"fp32": 0.005, "16-bit": 0.15, "4-bit": 0.25}
REFERENCES = ("peft", "peft-4bit", "peft-nodrop", "peft-4bit-nodrop")


def judge(results: Results) -> list[Gate]:
    """All gates of all variants that were measured."""
    return [
        Gate(name, gate, passed, detail)
        for name, arm in results.arms.items()
        if arm.status == "measured"
        for gate, passed, detail in _gates(results, arm)
    ]


def reference(results: Results, arm: Arm) -> Arm:
    """The variant that `arm` must agree with: over the same weights (16-bit or NF4), plain PEFT first."""
    alike = [a for a in results.arms.values() if a.status == "measured" and a.four_bit == arm.four_bit]
    for name in REFERENCES:
        for other in alike:
            if other.variant == name:
                return other
    return alike[0]


def _gates(results: Results, arm: Arm) -> Iterator[tuple[str, bool, str]]:
    other = reference(results, arm)
    yield _gradient(results, arm)
    yield "trained weights move", arm.moved, "a sample of them, before the first update and after the last"
    yield (
        "trainable count",
        arm.trainable == arm.expected_trainable,
        f"{arm.trainable:,}, wanted {arm.expected_trainable:,}",
    )
    yield _layers(arm)
    yield _checkpointing(arm)
    yield _skipped(results, arm)
    if other is not arm:
        yield _same_chats(arm, other)
        yield _probe(arm, other)
        yield _losses(results, arm, other)


def _gradient(results: Results, arm: Arm) -> tuple[str, bool, str]:
    norms = [u.grad_norm for u in results.early(arm.variant) if not u.skipped]
    real = [norm for norm in norms if norm is not None and math.isfinite(norm)]
    passed = bool(norms) and len(real) == len(norms) and min(real) > 0
    if not real:
        return "gradient norm above zero", False, "no update was made" if not norms else "not finite"
    detail = f"{min(real):.3g} to {max(real):.3g} over {len(norms)} updates"
    return "gradient norm above zero", passed, detail if len(real) == len(norms) else f"{detail}, not finite in some"


def _layers(arm: Arm) -> tuple[str, bool, str]:
    if not ENGINES[arm.engine].patches:
        return "patched layers", not arm.patched, f"{arm.patched or 'none'}, wanted none"
    if not arm.patched and arm.expected_layers == 0:
        return "patched layers", True, "none: the engine has no layers of its own for this model"
    passed = bool(arm.patched) and all(count == arm.expected_layers for count in arm.patched.values())
    return "patched layers", passed, f"{arm.patched}, wanted {arm.expected_layers} of each"


def _checkpointing(arm: Arm) -> tuple[str, bool, str]:
    if arm.checkpointed_wanted is not None:
        return (
            "checkpointing as asked",
            arm.checkpointed == arm.checkpointed_wanted,
            f"auto: on in {arm.checkpointed} layers, wanted {arm.checkpointed_wanted} of {arm.expected_layers}",
        )
    on = arm.checkpointing != "off"
    return (
        "checkpointing as asked",
        on == (arm.checkpointed > 0),
        f"{arm.checkpointing}: on in {arm.checkpointed} modules",
    )


def _skipped(results: Results, arm: Arm) -> tuple[str, bool, str]:
    updates = results.early(arm.variant)
    late = sum(u.skipped for u in updates if u.turn > 0)
    early = sum(u.skipped for u in updates) - late
    note = f" ({early} while loss scaling found its scale in the warm-up)" if early else ""
    return "no skipped updates", late == 0, f"{late} in {sum(u.turn > 0 for u in updates)} updates{note}"


def _same_chats(arm: Arm, other: Arm) -> tuple[str, bool, str]:
    count = min(len(arm.chats), len(other.chats))
    passed = count > 0 and arm.chats[:count] == other.chats[:count]
    return "same tokens in the same order", passed, f"first {count} chats against {other.variant}"


def _probe(arm: Arm, other: Arm) -> tuple[str, bool, str]:
    pairs = list(zip(arm.probe, other.probe, strict=False))
    if not pairs:
        return "single tokens' losses", False, "not measured"
    difference = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))
    tolerance = PROBE[_coarser(arm, other)]
    detail = f"differ by {difference:.4f} (rms of {len(pairs)}) from {other.variant}, tolerance {tolerance:g}"
    return "single tokens' losses", difference <= tolerance, detail  # NaN is not within any tolerance


def _coarser(arm: Arm, other: Arm) -> str:
    if arm.four_bit or other.four_bit:
        return "4-bit"
    return "fp32" if {arm.precision, arm.held, other.precision, other.held} == {"fp32", "float32"} else "16-bit"


def _losses(results: Results, arm: Arm, other: Arm) -> tuple[str, bool, str]:
    """The first update against all; later ones only where the same weights train."""
    mine, theirs = results.early(arm.variant), results.early(other.variant)
    comparable = FIRST_UPDATES if arm.trained == other.trained else 1
    pairs = list(zip(mine, theirs, strict=False))[:comparable]
    if not pairs:
        return "losses agree", False, "no update was made"
    differences = [_relative(a.loss, b.loss) for a, b in pairs]
    late = max(differences[1:], default=0.0)
    passed = differences[0] <= FIRST_LOSS and all(d <= LATER_LOSS for d in differences[1:])
    detail = (
        f"first update {differences[0]:.2%} from {other.variant} (tolerance {FIRST_LOSS:.0%}), "
        f"next {len(pairs) - 1} within {late:.2%} (tolerance {LATER_LOSS:.0%})"
    )
    return "losses agree", passed, detail


def _relative(value: float | None, other: float | None) -> float:
    """Relative difference; infinite where one is not a number."""
    if value is None or other is None or not math.isfinite(value - other):
        return math.inf
    return abs(value - other) / max(abs(other), 1e-9)
