"""`toolkit bench`: measure variants, judge them, write what came out."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import driver
from bench.measure import measure, stamp
from bench.profiles import find_profile
from bench.results import FILE, Results
from bench.settings import Bench, Settings, prepare
from bench.shapes import parse_shape
from bench.variants import select
from toolkit.errors import InputError
from toolkit.hardware import free_cores, usable_cores
from toolkit.planning.cards import Card, cpu_card, seen_gpus
from toolkit.runs import command_line, versions

QUICK_SHAPE = "2x96"
QUICK_RECIPE = Path("recipes/quickstart.toml")


def settings_for(
    *,
    recipe: Path,
    variants: str | None,
    shape: str,
    profile: str,
    overrides: tuple[str, ...],
    turns: int,
    updates: int,
    warmup: int,
    parallel: int,
    restart: bool,
    quick: bool,
) -> Settings:
    """What the command line says, with what this machine decides. Raises `InputError` for what can't be meant."""
    gpu = _here() if not quick else None
    where = find_profile(profile, gpu)
    if quick:
        # two micro-batches of two rows: enough for accumulation, short enough for two cores
        overrides = ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=2", *overrides)
    return Settings(
        recipe=recipe,
        variants=tuple(select(variants, gpu=gpu is not None, quick=quick)),
        shape=parse_shape(shape),
        profile=where,
        overrides=overrides,
        turns=turns,
        updates=updates,
        settle=1 if gpu is not None else 0,
        warmup=warmup,
        parallel=parallel,
        restart=restart,
        gpu=gpu is not None,
        threads=4 if gpu is not None else free_cores(),
    )


def _here() -> Card | None:
    seen = seen_gpus()
    return seen[0].card if seen else None


def run_bench(settings: Settings, out: Path, console: Console) -> Results:
    """Measure and write OUT/results.jsonl; raises before anything is measured when OUT is taken."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists already; name another folder")
    card = _card(settings)
    scratch = Path(tempfile.mkdtemp(prefix="toolkit-bench-"))
    started = time.perf_counter()
    try:
        bench = prepare(settings, scratch)
        out.mkdir(parents=True, exist_ok=True)
        results = Results(_header(bench, card))
        console.print(
            f"measuring  {len(bench.jobs)} variants on {card.title}, profile {settings.profile.name}, shape "
            f"{settings.shape.name}; logs in {out / 'logs'}",
            highlight=False,
        )
        try:
            measure(bench, results, card, out / "logs", console)
        finally:
            results.run["seconds"] = round(time.perf_counter() - started, 1)
            results.save(out / FILE)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def _card(settings: Settings) -> Card:
    if settings.gpu:
        return seen_gpus()[0].card
    import psutil

    from toolkit.hardware import cpu_name

    return cpu_card(settings.threads, psutil.virtual_memory().total, cpu_name())


def _header(bench: Bench, card: Card) -> dict[str, Any]:
    settings, recipe = bench.settings, bench.loaded.recipe
    import psutil

    from toolkit.hardware import cpu_name

    gpus = seen_gpus() if settings.gpu else []
    gpu = {"name": gpus[0].name, "memory": gpus[0].memory, **driver.description()} if gpus else None
    return {
        "date": stamp(),
        "command": command_line(),
        "profile": settings.profile.name,
        "cap": settings.profile.cap,
        "card": card.name,
        "shape": settings.shape.name,
        "recipe": str(settings.recipe),
        "model": recipe.model.name,
        "parameters": bench.shape.parameters,
        "trained_share": bench.share,
        "chats_per_update": recipe.chats_per_update,
        "settings": {
            key: getattr(settings, key)
            for key in ("turns", "updates", "settle", "warmup", "parallel", "restart", "threads", "overrides")
        },
        "hardware": {
            "gpu": gpu,
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "memory": psutil.virtual_memory().total,
        },
        "card_rates": asdict(card),
        "versions": versions(),
    }
