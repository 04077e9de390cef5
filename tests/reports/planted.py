"""Synthetic training logs (a shape, a planted fault, noise), and which verdicts they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.reports.log import Facts
from toolkit.reports.reading import Reader, read

Rows = list[dict[str, Any]]
RECORDED = Path(__file__).parent / "recorded"
N = 200
FACTS = Facts(total=N, warmup=20, per_epoch=70, learning_rate=2e-4, epochs=3)
SEEDS = 20
FACTS_NOT_ALARMS = {"no_better", "too_noisy", "too_short"}  # notes that say that nothing can be said


def falling(n: int, start: float = 2.5, end: float = 0.8, speed: float = 6.0) -> np.ndarray[Any, Any]:
    """A loss that drops fast and then levels off."""
    x = np.linspace(0, 1, n)
    return end + (start - end) * np.exp(-speed * x)


def rows(
    loss: Any,
    noise: float = 0.05,
    seed: int = 0,
    evaluations: dict[int, float] | None = None,
    eval_noise: float = 0.0,
    groups: int = 0,
    rate: float = 2e-4,
    warmup: int | None = None,
    grad_noise: float = 0.2,
    speed: Any = 5000.0,
    speed_noise: float = 0.08,
    memory: Any = 8.0e9,
    relative: bool = True,
) -> Rows:
    """A log with the losses `loss` under noise: `noise` is a share of the loss, or absolute where not `relative`.

    Evaluations come after the update they are keyed by, with `eval_noise` on each; `groups` chats' losses are spread
    by half their mean and move together with it, each with `eval_noise` of its own.
    """
    random = np.random.default_rng(seed)
    loss = np.asarray(loss, dtype=float)
    n = len(loss)
    warmup = n // 10 if warmup is None else warmup
    scale = loss * noise if relative else np.full(n, noise)
    losses = np.maximum(loss + random.normal(size=n) * scale, 1e-3)
    norms = np.exp(random.normal(size=n) * grad_noise)
    speeds = np.broadcast_to(speed, n) * np.exp(random.normal(size=n) * speed_noise)
    memories = np.broadcast_to(memory, n)
    offsets = random.normal(size=groups) * 0.5
    found: Rows = []

    def evaluate(update: int) -> None:
        if evaluations is None or update not in evaluations:
            return
        value = evaluations[update]
        if groups:
            each = value * (1 + offsets) + random.normal(size=groups) * eval_noise
            found.append({"update": update, "eval_loss": float(each.mean()), "eval_groups": each.tolist()})
        else:
            found.append({"update": update, "eval_loss": float(value + random.normal() * eval_noise)})

    evaluate(0)
    for i in range(n):
        update = i + 1
        cooled = rate * (0.5 + 0.5 * np.cos(np.pi * max(0, update - warmup) / max(1, n - warmup)))
        found.append(
            {
                "update": update,
                "epoch": 3 * update / n,
                "loss": float(losses[i]),
                "grad_norm": float(norms[i]),
                "learning_rate": float(rate * update / warmup if update < warmup else cooled),
                "tokens_per_second": float(speeds[i]),
                "memory": int(memories[i]),
            }
        )
        evaluate(update)
    return found


def spaced(values: Any, n: int) -> dict[int, float]:
    """Evaluations at equal distances from update 0 to n."""
    return {round(i * n / (len(values) - 1)): float(value) for i, value in enumerate(values)}


def every(found: Rows, facts: Facts = FACTS) -> set[str]:
    """Codes of all verdicts that were ever given while a log was read."""
    reader = Reader(facts)
    seen = {verdict.code for row in found for verdict in reader.feed(row)}
    return seen | {verdict.code for verdict in reader.finish()}


def at_end(found: Rows, facts: Facts = FACTS) -> set[str]:
    return {verdict.code for verdict in read(found, facts)}


def rate_of(code: str, make: Callable[[int], Rows], seeds: int = SEEDS) -> float:
    """How many of `seeds` logs have the verdict at their end."""
    return sum(code in at_end(make(seed)) for seed in range(seeds)) / seeds


GOOD_EVALUATIONS = spaced([2.5, 1.4, 1.05, 0.97, 0.93, 0.92, 0.92], N)
OVERFIT = spaced([2.5, 0.9, 0.7, 0.74, 0.8, 0.86, 0.92, 0.97, 1.0], N)
