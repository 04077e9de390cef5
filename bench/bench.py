"""`toolkit bench`: measure variants, judge them, write what came out."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import driver, report
from bench.keep import keep
from bench.measure import measure, stamp
from bench.profiles import THIS, find_profile
from bench.settings import Bench, Settings, prepare
from bench.shapes import parse_shape
from bench.variants import VARIANTS, select
from toolkit.bench_results import FILE, Results
from toolkit.cache import write_text
from toolkit.engines import versions
from toolkit.errors import InputError
from toolkit.hardware import free_cores, usable_cores
from toolkit.planning.calibration import record
from toolkit.planning.cards import Card, cpu_card, seen_gpus
from toolkit.reports.bench import pairs
from toolkit.runs import command_line, default_folder

QUICK_SHAPE = "2x96"
GPU_RECIPE = Path("recipes/tools.toml")
RUNS = Path("runs/bench")
QUICK_RECIPE = Path("recipes/quickstart.toml")


def bench(
    *,
    recipe: Path | None,
    profile: str,
    shape: str | None,
    variants: str | None,
    quick: bool,
    out: Path | None,
    turns: int,
    updates: int,
    warmup: int,
    parallel: int | None,
    restart: bool,
    kernels: int,
    overrides: tuple[str, ...],
    console: Console,
) -> bool:
    """Measure what the command line says and write everything; False when a gate or a variant failed.

    Without a GPU the small model is measured on the CPU, and what was asked for is planned and shown as planned.
    """
    here = None if quick else _here()
    gpu = here is not None
    if kernels and not gpu:
        raise InputError("--kernels: needs a CUDA GPU and there is none here")
    where = find_profile(profile, here)
    wanted = recipe or GPU_RECIPE
    if not gpu:
        recipe = recipe or QUICK_RECIPE
        # two micro-batches of two rows: enough for accumulation, short enough for two cores
        overrides = ("train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=2", *overrides)
    settings = Settings(
        recipe=recipe or GPU_RECIPE,
        variants=tuple(select(variants, gpu=gpu, quick=quick)),
        shape=parse_shape(shape or ("4x2048" if gpu else QUICK_SHAPE)),
        profile=where if gpu else THIS,
        overrides=overrides,
        turns=turns,
        updates=updates if gpu else 1,
        settle=1 if gpu else 0,
        warmup=warmup if gpu else 1,
        parallel=parallel or (4 if gpu else 2),
        restart=restart,
        kernels=kernels,
        gpu=gpu,
        threads=4 if gpu else free_cores(),
    )
    folder = out or default_folder(f"{time.strftime('%Y-%m-%d')}-{where.name}-{settings.shape.name}", RUNS)
    results = run_bench(settings, folder, console)
    report.show(results, console)
    write_pages([results], folder / "report.md", folder / "report.html")
    record(pairs(results))
    console.print(f"results    {folder / FILE}, report.md, report.html", highlight=False)
    if not gpu and not quick:
        from bench.planned import show_planned

        show_planned(wanted, overrides=(), shape=parse_shape(shape or "4x2048"), profile=where, console=console)
    return results.ok


def list_variants(console: Console) -> None:
    """Every variant, whether it is measured unless others are named, and what it stands for."""
    for variant in VARIANTS:
        mark = "core" if variant.core else ""
        console.print(f"{variant.name:30}{mark:6}{variant.stands_for}", highlight=False, soft_wrap=True)


def write_pages(several: list[Results], markdown: Path | None, html: Path | None) -> None:
    """Write the Markdown and the web page of some runs."""

    if markdown is not None:
        write_text(markdown, "\n".join(report.markdown(results) for results in several))
    if html is not None:
        write_text(html, report.page(several))


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
            measure(bench, results, card, out / "logs", console, lambda: results.save(out / FILE))
        finally:
            results.run["seconds"] = round(time.perf_counter() - started, 1)
            results.save(out / FILE)
        if told := keep(results, {name: job.settings for name, job in bench.jobs.items()}, bench.shape):
            console.print(told, highlight=False, soft_wrap=True, markup=False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def _card(settings: Settings) -> Card:
    if settings.gpu:
        return seen_gpus()[0].card
    import psutil

    from toolkit.hardware import cpu_flags, cpu_name

    return cpu_card(settings.threads, psutil.virtual_memory().total, cpu_name(), wide="avx512f" in cpu_flags())


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
        "model_shape": asdict(bench.shape),
        "trained_share": bench.share,
        "chats_per_update": recipe.chats_per_update,
        "settings": {
            key: getattr(settings, key)
            for key in (
                "turns",
                "updates",
                "settle",
                "warmup",
                "parallel",
                "restart",
                "threads",
                "kernels",
                "overrides",
            )
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
