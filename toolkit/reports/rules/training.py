"""Verdicts on the training loss: learning, a plateau, stuck, going up, oscillating."""

from __future__ import annotations

import math

import numpy as np

from toolkit.reports.log import Facts, Log
from toolkit.reports.rules.instant import LOW_START, lower_rate
from toolkit.reports.rules.look import Look
from toolkit.reports.statistics import Array, blocks, falling_p, median, rising_p, shift
from toolkit.reports.verdicts import Verdict
from toolkit.words import counted

LEAST = 8  # rows below which nothing is said of a trend
STUCK = 0.05  # of the starting loss: of the chapter's 3.0 that is 0.15, what it calls "about the same" elsewhere
STUCK_LEAST = 24  # rows, a quarter of which are compared with another
RISE = 0.05  # above the least: Prechelt's generalisation loss GL5 (Early stopping, but when?, 1998)
PLATEAU = 0.05  # of the whole fall, in the last third
SLOW_RATE = 5e-5  # about half-way (in the logarithm) between the chapter's 2e-4 and its "barely moves" of 1e-5
OSCILLATION = 2.0  # times the noise of before
MOST_TIMES = math.log(100)  # more says no more: before, the loss hardly moved at all


def progress(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """Falling, flat after a fall, stuck near its start, or going up again."""
    updates, losses = log.finite_losses()
    if len(losses) < LEAST:
        return _too_short(log, facts, look)
    y, at = blocks(losses), blocks(updates)
    head = max(3, min(5, len(losses) // 10))
    start, end = median(losses[:head]), median(losses[-head:])
    told = f"median loss {start:.3f} over the first {head} rows, {end:.3f} over the last {head}"
    update = updates[-1]
    rise = _rise(y, look)
    if rise is not None:
        lowest = int(at[rise])
        return Verdict(
            topic="progress",
            code="rising",
            level="stop",
            title="The training loss goes up after going down",
            evidence=f"least around update {lowest} ({y[rise]:.3f}), {_level_after(y, rise):.3f} since",
            advice=f"stop here; then {lower_rate(facts)}, or a longer train.warmup_ratio",
            update=update,
        )
    if stuck := _stuck(log, facts, look, update):
        return stuck
    if falling_p(y) > look.alpha and not look.held & {"learning", "plateau"}:
        return None
    if start <= end:
        return None
    if _flat_end(y, start - end, look):
        return Verdict(
            topic="progress",
            code="plateau",
            level="good",
            title="Fast drop, then a plateau: normal, the model has learned the basics",
            evidence=told,
            update=update,
        )
    return Verdict(
        topic="progress", code="learning", level="good", title="The model is learning", evidence=told, update=update
    )


def _too_short(log: Log, facts: Facts, look: Look) -> Verdict | None:
    if not look.final:
        return None
    return Verdict(
        topic="progress",
        code="too_short",
        level="note",
        title="Too few rows to say whether the loss falls",
        evidence=f"{counted(len(log.losses), 'row')} with a loss; {LEAST} are needed",
        advice="a smaller train.logging_steps"
        if facts.logging_steps > 1 and log.last_update >= LEAST
        else _longer(facts, "more updates: more chats, or more of train.num_train_epochs or max_steps"),
        update=log.last_update,
    )


def _rise(y: Array, look: Look) -> int | None:
    """The block with the least loss, if what comes after it rises, and has risen enough.

    Noise puts its least value anywhere, but what follows is in random order still: the test is of the blocks after it.
    """
    lowest = int(np.argmin(y))
    after = y[lowest + 1 :]
    if lowest == 0 or len(after) < 4 or _level_after(y, lowest) < (1 + RISE) * _level_around(y, lowest):
        return None
    return lowest if "rising" in look.held or rising_p(after) <= look.alpha else None


def _level_after(y: Array, lowest: int) -> float:
    after = y[lowest + 1 :]
    return median(after[-max(3, len(after) // 3) :])


def _level_around(y: Array, lowest: int) -> float:
    return median(y[max(0, lowest - 2) : lowest + 3])


def _stuck(log: Log, facts: Facts, look: Look, update: int) -> Verdict | None:
    """The loss has certainly not fallen by more than `STUCK` of where it began, though the rate was up for a while."""
    _, losses = log.finite_losses()
    if len(losses) < STUCK_LEAST or update < 2 * facts.warmup:
        return None
    quarter = len(losses) // 4
    first, last = losses[:quarter], losses[-quarter:]
    start = median(first)
    _, low, high = shift(first, last, look.alpha)
    # `-low` is the most that the loss may have fallen
    if start <= LOW_START or -low > STUCK * start or high > RISE * start:
        return None
    rates = [rate for rate in log.rates if math.isfinite(rate)]
    peak = max(rates, default=facts.learning_rate)
    evidence = (
        f"{start:.3f} in the first quarter, {median(last):.3f} in the last; it fell by {max(0.0, -low) / start:.1%} at "
        f"most ({min(1 - look.alpha, 0.9999):.2%} sure)"
    )
    if 0 < peak <= SLOW_RATE:
        return Verdict(
            topic="progress",
            code="rate_low",
            level="warning",
            title="The loss barely moves: the rate is too low",
            evidence=f"{evidence}; the rate went up to {peak:.1e}, the usual one for LoRA is 2e-4",
            advice="train.learning_rate = 2e-4",
            update=update,
        )
    return Verdict(
        topic="progress",
        code="stuck",
        level="stop",
        title="The loss is stuck near its start: nothing is learned",
        evidence=evidence,
        advice="`toolkit data check` and `toolkit data preview`: wrong labels, mask or data.call_format look like "
        "this; if they are right, twice train.learning_rate",
        update=update,
    )


def _flat_end(y: Array, fall: float, look: Look) -> bool:
    """Whether most of the fall came before the last third, in which hardly any is left.

    Once called a plateau it stays one until the last third has twice the fall that a plateau may have.
    """
    if len(y) < 12 or fall <= 0:
        return False
    third = len(y) // 3
    middle, last = y[-2 * third : -third], y[-third:]
    _, low, _ = shift(middle, last, max(look.alpha, 1e-3))
    limit = 2 * PLATEAU if "plateau" in look.held else PLATEAU
    return -low <= limit * fall


def oscillation(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """The loss jumps more than it did before, without having fallen: the rate is too high for it to settle.

    Jumps are between neighbours of separate pairs, so each is apart from the others; the last third's are compared
    with those of each sixth before, and all four of these must stay within the look's false alarms.
    """
    updates, losses = log.finite_losses()
    sixth = len(losses) // 6
    if sixth < 10:
        return None
    values = np.asarray(losses[-6 * sixth :])
    parts = [values[k * sixth : (k + 1) * sixth] for k in range(6)]
    last = values[-2 * sixth :]
    calmest: tuple[float, float] | None = None  # (how many times the noise, surely; median)
    for part in parts[:4]:
        _, low, _ = shift(np.log(_jumps(part)), np.log(_jumps(last)), look.alpha / 4)
        if calmest is None or low > calmest[0]:
            calmest = (low, float(np.median(part)))
    if calmest is None or median(last) < 0.9 * calmest[1]:
        return None
    held = "oscillating" in look.held
    if calmest[0] < math.log(OSCILLATION) * (0.5 if held else 1.0):
        return None
    return Verdict(
        topic="rate",
        code="oscillating",
        level="warning",
        title="The loss oscillates: the rate is too high",
        evidence=f"it jumps by {np.median(_jumps(last)):.3f} from row to row in the last third, surely more than "
        f"{math.exp(min(calmest[0], MOST_TIMES)):.1f} times as much as earlier, and has not fallen since",
        advice=f"{lower_rate(facts)}, or more chats an update (train.gradient_accumulation_steps)",
        update=updates[-1],
    )


def _jumps(values: Array) -> Array:
    even = len(values) // 2 * 2
    jumps = np.abs(values[1:even:2] - values[0:even:2])
    # equal neighbours have no logarithm; a hair's breadth stands for them
    return np.maximum(jumps, 1e-9 * max(1e-30, float(np.max(np.abs(values)))))


def unfinished(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """At the end: the loss was still falling, so more updates would have lowered it further."""
    _, losses = log.finite_losses()
    if not look.final or len(losses) < 3 * LEAST or len(log.evaluations) >= 2 or "plateau" in look.held:
        return None
    sixth = len(losses) // 6
    before, last = losses[-2 * sixth : -sixth], losses[-sixth:]
    estimate, _, high = shift(before, last, look.alpha)
    if high >= 0 or high > -RISE / 2 * median(before):
        return None
    return Verdict(
        topic="length",
        code="still_falling",
        level="note",
        title="The loss was still falling at the end",
        evidence=f"by {-estimate:.3f} between the last two sixths of the rows",
        advice=f"{_longer(facts, 'more train.num_train_epochs')}, or a higher train.learning_rate",
        update=log.last_update,
    )


def _longer(facts: Facts, otherwise: str) -> str:
    """What makes a run longer: its time budget, where that is what ended it."""
    return f"a larger train.max_minutes than {facts.minutes:g}" if facts.minutes else otherwise
