"""Verdicts on the machine: speed and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from toolkit.reports.log import Facts, Log
from toolkit.reports.rules.look import Look
from toolkit.reports.statistics import Array, blocks, median, records_p, shift
from toolkit.reports.verdicts import Verdict

WARMING_UP = 2  # rows that compile and fill caches
SLOWER = 0.85  # of the speed before
GROWTH = 0.05  # of memory, in the second half of the run
LEAST = 24


def throughput(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """The last third is surely slower than the first by more than 15%."""
    speeds = _known(log.speeds)
    if len(speeds) < LEAST:
        return None
    third = len(speeds) // 3
    first, last = speeds[:third], speeds[-third:]
    _, _, high = shift(np.log(first), np.log(last), look.alpha)
    if high > math.log(SLOWER) * (0.5 if "slower" in look.held else 1.0):
        return None
    return Verdict(
        topic="speed",
        code="slower",
        level="warning",
        title="Training is getting slower",
        evidence=f"{median(first):,.0f} tokens/s in the first third, {median(last):,.0f} in the last",
        advice="a look at other processes (where updates are short, a GPU waits for a busy CPU) and at the GPU's "
        "temperature and clocks (nvidia-smi); on a CPU also train.torch_threads",
        update=log.updates[-1],
    )


def memory(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """Memory reaches new heights again and again, more often than chats in random order make it, by more than longer
    chats take, and is not given back.

    On a CPU the heap grows over updates of many lengths until it is trimmed (`toolkit.training.memory`), higher after a
    longer update has shown what one needs. What is there after a trim tells whether anything is kept.
    """
    values = _known(log.memory)
    if len(values) < LEAST:
        return None
    array = blocks(values)
    count, p = records_p(array)
    half = len(array) // 2
    before, now = float(array[:half].max()), float(array.max())
    part = len(values) // 4
    if values[-part:].min() < (1 + GROWTH) * values[-2 * part : -part].min():
        return None
    if now < (1 + GROWTH) * _longer(log) * before or (p > look.alpha and "creeping" not in look.held):
        return None
    return Verdict(
        topic="memory",
        code="creeping",
        level="warning",
        title="Memory creeps up",
        evidence=f"{before / 2**30:.2f} GiB at most in the first half of the rows, {now / 2**30:.2f} GiB now, with "
        f"{count} new heights in the second half",
        advice="a smaller train.per_device_train_batch_size before it runs out (with more "
        "train.gradient_accumulation_steps); save often (train.save_steps), so that --resume can go on",
        update=log.updates[-1],
    )


def _longer(log: Log) -> float:
    """How many times as many tokens the longest row of the second half has as that of the first; at least 1."""
    tokens = _known(log.tokens)
    half = len(tokens) // 2
    return max(1.0, float(tokens[half:].max() / tokens[:half].max())) if half else 1.0


def _known(series: Sequence[float]) -> Array:
    """What is finite and above 0 of a series, its first rows left out."""
    values = np.asarray(series[WARMING_UP:], dtype=float)
    return values[np.isfinite(values) & (values > 0)]
