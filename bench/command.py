"""`toolkit bench`: measure variants, judge them, write what came out."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench import report
from bench.card_lock import CardLock
from bench.measure import first_gpu, measure
from bench.plan import VariantPlan, fixed_lengths
from bench.profiles import THIS, Profile, Shape, find_profile, parse_shape
from bench.settings import Bench, Settings, prepare, trials
from bench.variants import VARIANTS, find, select
from toolkit.bench_results import FILE, Results
from toolkit.engines import ENGINES, versions
from toolkit.engines.measured import Measured, kind_of, record, signature, store
from toolkit.engines.recipes import load
from toolkit.errors import InputError
from toolkit.files import write_text
from toolkit.hardware import AMPERE, cpu_flags, cpu_name, free_cores, usable_cores
from toolkit.models.families import load_shape
from toolkit.models.shape import ModelShape
from toolkit.planning import calibration
from toolkit.planning.cards import CARDS, Card, cpu_card, query_smi, seen_gpus
from toolkit.planning.lengths import lengths_of
from toolkit.recipe.schema import Recipe
from toolkit.reports.bench import gib, pairs
from toolkit.runs import command_line, default_folder
from toolkit.words import counted

QUICK_SHAPE = "2x96"
GPU_RECIPE = Path("recipes/tools.toml")
RUNS = Path("runs/bench")
QUICK_RECIPE = Path("recipes/quickstart.toml")


def run_command(
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
    lock: Path | None,
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
        lock=lock,
        gpu=gpu,
        threads=4 if gpu else free_cores(),
    )
    folder = out or default_folder(f"{time.strftime('%Y-%m-%d')}-{where.name}-{settings.shape.name}", RUNS)
    results = run_bench(settings, folder, console)
    report.show(results, console)
    write_pages([results], folder / "report.md", folder / "report.html")
    calibration.record(pairs(results))
    console.print(f"results    {folder / FILE}, report.md, report.html", highlight=False)
    if not gpu and not quick:
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
    card, lock = _card(settings), CardLock(settings.lock)
    scratch = Path(tempfile.mkdtemp(prefix="toolkit-bench-"))
    started = time.perf_counter()
    try:
        bench = prepare(settings, scratch)
        out.mkdir(parents=True, exist_ok=True)
        results = Results(_header(bench, card))
        _show_left_out(bench.left_out, console)
        console.print(
            f"measuring  {counted(len(bench.jobs), 'variant')} on {card.title}, profile {settings.profile.name}, shape "
            f"{settings.shape.name}; logs in {out / 'logs'}",
            highlight=False,
        )
        try:
            measure(bench, results, card, out / "logs", console, lambda: results.save(out / FILE), lock)
        finally:
            results.run["seconds"] = round(time.perf_counter() - started, 1)
            results.save(out / FILE)
        if message := record_speeds(results, {name: job.recipe for name, job in bench.jobs.items()}, bench.shape):
            console.print(message, highlight=False, soft_wrap=True, markup=False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results


def _card(settings: Settings) -> Card:
    if settings.gpu:
        return seen_gpus()[0].card
    return cpu_card(settings.threads, psutil.virtual_memory().total, cpu_name(), wide="avx512f" in cpu_flags())


def _header(bench: Bench, card: Card) -> dict[str, Any]:
    settings, recipe = bench.settings, bench.loaded.recipe
    gpus = seen_gpus() if settings.gpu else []
    gpu = {"name": gpus[0].name, "memory": gpus[0].memory, **_driver()} if gpus else None
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
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


def _driver() -> dict[str, str]:
    """Driver version, power limit and clocks of the first visible GPU; empty without nvidia-smi."""
    fields = ("driver_version", "power.limit", "clocks.max.sm", "temperature.gpu")
    values = [value.strip() for value in query_smi(*fields, gpu=first_gpu(), units=True).strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}


def record_speeds(results: Results, recipes: Mapping[str, Recipe], shape: ModelShape) -> str:
    """Keep how fast each adapter arm trained, for `train.engine = "auto"`; returns what to print of it.

    `recipes`: those that the arms were trained by. Nothing is kept unless every gate of the bench passed, nor of a CPU
    or where another card was imposed on this one: such figures are not this GPU's.
    """
    if not results.cuda:
        return ""
    if results.run["cap"] is not None:
        return f"not kept for train.engine = auto: profile {results.run['profile']} is imposed on another card"
    if failed := results.failed_gates():
        names = ", ".join(sorted({gate.variant for gate in failed}))
        return f"not kept for train.engine = auto: gates of {names} failed"
    kinds = measurements(results, recipes, shape)
    count = sum(map(len, kinds.values()))
    if not count:
        return ""
    warning = record(results.device, kinds)
    message = f"{count} arms kept for train.engine = auto in {store()}"
    return f"{warning}\n{message}" if warning else message


def measurements(results: Results, recipes: Mapping[str, Recipe], shape: ModelShape) -> dict[str, list[Measured]]:
    """Real tokens a second of each arm that trains an adapter as the product does, by kind of run."""
    found: dict[str, list[Measured]] = {}
    for name, arm in results.arms.items():
        speed = results.throughput(name)
        if arm.status != "measured" or arm.trained != "adapter" or arm.full_logits or not speed:
            continue
        if not find(name).usual:
            continue
        recipe = recipes[name]
        train = recipe.train
        row = Measured(
            date=results.run["date"],
            card=results.run["card_rates"]["title"],
            arm=name,
            engine=arm.engine,
            model=results.run["model"],
            shape=signature(shape),
            lengths=results.run["shape"],
            chats=recipe.chats_per_update,
            batch=train.per_device_train_batch_size,
            micro_batch=train.micro_batch,
            gradient_checkpointing=train.gradient_checkpointing,
            lora_dropout=recipe.lora.lora_dropout,
            products=ENGINES[arm.engine].products(recipe),
            tokens_per_second=round(speed, 1),
            versions=results.run["versions"],
        )
        found.setdefault(kind_of(recipe, arm.precision), []).append(row)
    return found


def _show_left_out(variants: Mapping[str, str], console: Console) -> None:
    for name, why in variants.items():
        console.print(f"left out   {name}: {why}", highlight=False, soft_wrap=True, markup=False)


def show_planned(recipe: Path, *, overrides: tuple[str, ...], shape: Shape, profile: Profile, console: Console) -> None:
    """Print memory and time of the core variants on the profile's card (a T4 for `this`), by the planner's formulas."""
    card = profile.card or CARDS["t4"]
    loaded = load(recipe, overrides)
    model = load_shape(loaded.recipe.model)
    lengths = lengths_of(loaded.recipe)
    core = tuple(variant for variant in VARIANTS if variant.core)
    settings = Settings(recipe, core, shape, profile, overrides)
    title = f"{loaded.recipe.model.name}, {shape.name}, on {card.title} ({gib(card.memory)} GiB)"
    table = Table(title=f"PLANNED, not measured: {title}", title_justify="left", box=None)
    for i, column in enumerate(("variant", "peak GiB", "fits", "s an update")):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    recipes, left_out = trials(settings, loaded)
    _show_left_out(left_out, console)
    for variant in core:
        if variant.name not in recipes:
            continue
        plan = VariantPlan(model, variant, recipes[variant.name])
        batch = plan.recipe.train.per_device_train_batch_size
        rows, width = (batch, shape.tokens) if shape.tokens else (lengths.rows(batch), lengths.longest)
        precision = "bf16" if card.capability >= AMPERE else "fp16"
        trained = round(rows * width * lengths.trained)
        memory = plan.memory(precision, rows, width, trained, cuda=True, flash=profile.flash, padded=not shape.fixed)
        seconds = plan.seconds(fixed_lengths(lengths, shape.tokens) if shape.tokens else lengths, card, precision)
        fits = "yes" if memory.total <= card.memory else "no"
        table.add_row(variant.name, gib(memory.peak), fits, f"{seconds:.2f}" if seconds else "")
    console.print(table)
