"""Verdicts on speed, memory, gradients and numbers that are not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.reports.planted import (
    FACTS,
    SEEDS,
    N,
    Rows,
    at_end,
    every,
    falling,
    rate_of,
    rows,
)
from toolkit.reports.log import Facts
from toolkit.reports.reading import Reader, read


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_getting_slower(noise: float) -> None:
    speed = np.linspace(5000, 3000, N)
    assert rate_of("slower", lambda seed: rows(falling(N), 0.05, seed, speed=speed, speed_noise=noise)) >= 0.95


def test_a_busier_host_in_the_second_half_is_slower() -> None:
    """A run of short updates on a GPU: a fifth slower from the middle on, while its speed wavers by 12%."""
    speed = np.r_[np.full(1000, 133_000.0), np.full(875, 105_000.0)]
    made = rows(falling(1875), 0.05, 0, speed=speed, speed_noise=0.12)
    assert "slower" in at_end(made, Facts(total=1875))


def test_compilations_and_short_last_updates_are_no_slowdown() -> None:
    """Whole shapes are compiled early, and an epoch's last few chats have a shape of their own: 300 times slower."""
    slow = [0, 2, 3, 4, 5, 9, 10, 25, 475, 951]
    speed = np.full(952, 165_000.0)
    speed[slow] /= 300
    for seed in range(10):
        made = rows(falling(952), 0.05, seed, speed=speed, speed_noise=0.2)
        assert "slower" not in every(made, Facts(total=952))
        # nor where slow updates come last
        made = rows(falling(952), 0.05, seed, speed=speed[::-1], speed_noise=0.2)
        assert "slower" not in every(made, Facts(total=952))


def test_memory_creeps_or_only_wavers() -> None:
    grown = np.linspace(1, 1.4, N)

    def memory(seed: int, shape: Any) -> Any:
        return 8e9 * shape * (1 + 0.01 * np.random.default_rng(seed).normal(size=N))

    def peaks(seed: int) -> Any:
        return np.maximum.accumulate(8e9 * (1 + 0.2 * np.random.default_rng(seed).exponential(size=N)))

    assert rate_of("creeping", lambda seed: rows(falling(N), 0.05, seed, memory=memory(seed, grown))) >= 0.95
    assert rate_of("creeping", lambda seed: rows(falling(N), 0.05, seed, memory=memory(seed, 1.0))) == 0
    assert rate_of("creeping", lambda seed: rows(falling(N), 0.05, seed, memory=peaks(seed))) <= 0.025


def test_memory_that_is_given_back_does_not_creep_however_high_it_gets() -> None:
    """Between trims a CPU's heap grows, higher from trim to trim; what is kept shows in what a trim leaves."""
    heap = 1e9 * (np.arange(N) % 7) / 6 * np.linspace(0.5, 1.5, N)

    def log(seed: int, kept: float) -> Rows:
        memory = (2e9 * np.linspace(1, 1 + kept, N) + heap) * (1 + 0.003 * np.random.default_rng(seed).normal(size=N))
        return rows(falling(N), 0.05, seed, memory=memory)

    assert rate_of("creeping", lambda seed: log(seed, 0.0)) == 0
    assert rate_of("creeping", lambda seed: log(seed, 1.0)) >= 0.95


def test_memory_that_longer_chats_take_does_not_creep() -> None:
    grown = np.linspace(1, 1.4, N)
    found = rows(falling(N), 0.05, 0, memory=8e9 * grown)
    assert "creeping" in at_end([{**row, "real_tokens": 5000} for row in found])
    longer = [{**row, "real_tokens": 5000 * size} for row, size in zip(found, grown**2, strict=True)]
    assert "creeping" not in at_end(longer)


@pytest.mark.parametrize(("spikes", "level"), [((100,), "note"), ((60, 90, 130, 180), "warning")])
def test_gradient_spikes(spikes: tuple[int, ...], level: str) -> None:
    found = rows(falling(N), 0.05, 0)
    for at in spikes:
        found[at]["grad_norm"] *= 30
    verdict = next(v for v in read(found, FACTS) if v.code == "gradient_spikes")
    assert verdict.level == level and f"{len(spikes)} of {N} rows" in verdict.evidence


def test_gradient_norms_that_only_waver_do_not_spike() -> None:
    blamed = sum("gradient_spikes" in every(rows(falling(N), 0.05, seed, grad_noise=0.4)) for seed in range(SEEDS))
    assert blamed <= 1


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite(name: str, value: float) -> None:
    found = rows(falling(20), 0.05, 0)
    found.append({"update": 21, "loss": 1.0, "grad_norm": 1.0} | {name: value})
    news = Reader(FACTS)
    for row in found[:-1]:
        news.feed(row)
    assert [v.code for v in news.feed(found[-1])] == ["not_finite"]
    assert "update 21" in news.verdicts[0].evidence and news.verdicts[0].level == "stop"


def test_an_infinite_gradient_norm_is_how_fp16_finds_its_scale() -> None:
    found = [*rows(falling(20), 0.05, 0), {"update": 21, "loss": 1.0, "grad_norm": math.inf}]
    assert "not_finite" not in at_end(found, Facts(fp16=True))


def test_memory_that_ran_out_is_noted_with_what_spares_it() -> None:
    rows: list[dict[str, Any]] = [{"update": 1, "loss": 3.0}, {"update": 2, "memory_cut": {"tokens": 512}}]
    verdict = next(v for v in read(rows) if v.code == "memory_cut")
    assert verdict.evidence == "at update 2, micro-batches of at most 512 tokens"
    assert verdict.advice.startswith("train.micro_batch = 512 from the start")
    rows.append({"update": 3, "memory_cut": {"rows": 1, "recompute": True, "eval_rows": 4}})
    verdict = next(v for v in read(rows) if v.code == "memory_cut")
    assert "at most 1 rows, held-out batches of at most 4 rows, all layers recompute" in verdict.evidence
    assert "per_device_train_batch_size = 1" in verdict.advice and "gradient_checkpointing = true" in verdict.advice


def test_fp16_updates_skipped() -> None:
    settled, again = rows(falling(N), 0.05, 0), rows(falling(N), 0.05, 0)
    for i in range(N):
        settled[i]["skipped_updates"] = min(i, 8)
        again[i]["skipped_updates"] = min(i, 8) + max(0, i - 20) // 10
    assert "fp16_skipped" not in every(settled, Facts(fp16=True))
    verdict = next(v for v in read(again, Facts(fp16=True)) if v.code == "fp16_skipped")
    assert "train.bf16" in verdict.advice
