"""`toolkit bench --quality`: seconds from the command to so many right answers, for several ways to train.

The number to choose by: what is faster an update may need more of them, start later or never get there. As MLPerf's
training benchmark counts it: from the start of the command to the evaluation that reaches the target, evaluations
included, several seeds each, the mean without the best and the worst. Only the token table is made before: every way
reads the same one.

A row is kept for each run as soon as it ends, in OUT/quality.jsonl; what has its row there is not run again, so that a
comparison can be made in several sittings. Runs that failed, or that were stopped after fewer minutes, are; and what
other chats, another card or other versions gave is not compared with.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.quality_rows import FILE, Evaluation, Machine, Row, Status, kept, saved, show, told
from bench.settings import slug
from bench.variants import Variant, select
from toolkit import models
from toolkit.data.held_out import sources_of
from toolkit.data.keys import data_key
from toolkit.data.table import build
from toolkit.engines import versions
from toolkit.engines.recipes import load
from toolkit.errors import InputError, Problem
from toolkit.hardware import cpu_name
from toolkit.hashes import sha256_of_text
from toolkit.planning.cards import seen_gpus
from toolkit.recipe.dump import dump
from toolkit.recipe.overrides import parse_override
from toolkit.recipe.schema import Recipe
from toolkit.records import append_jsonl
from toolkit.words import counted

ON_GPU = (
    "peft-packed-autockpt,unsloth-packed-autockpt,unsloth-4bit-packed-autockpt,compiled-autockpt,"
    "compiled-fused-autockpt,compiled-float8-autockpt,compiled-4bit-autockpt"
)
ON_CPU = "peft-packed-autockpt"
POLL = 0.1  # seconds between looks at a run's log
PATIENCE = 60.0  # seconds that a run has to end in, once it is told to
FORCED = {  # what every run has, and why
    "eval.early_stopping_patience": ("0", "a run goes on to the target or its own end"),
    "eval.best": ('"auto"', "which adapter is kept must not change what is timed"),
    "export.gguf": ("[]", "the time to the target is measured, and no run is kept"),
    "train.report_to": ("[]", "the time to the target is measured, and no run is kept"),
    "train.save_steps": ("1000000000", "the time to the target is measured, and no run is kept"),
}
SEED = "train.seed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: a variant with a seed. `overrides`: all `--set` values; `answers`: held-out chats that are decoded;
    `key`: a hash of what decides its result."""

    variant: Variant
    seed: int
    overrides: tuple[str, ...]
    answers: int
    key: str


def run_quality(
    recipe: Path,
    *,
    target: float,
    seeds: int,
    minutes: float,
    variants: str | None,
    overrides: tuple[str, ...],
    out: Path,
    console: Console,
) -> bool:
    """Run every variant with every seed, as far as OUT has no row of it yet; False when a run failed.

    target: share of right answers, 0 to 1. minutes: a run is stopped after so many. Raises an `InputError` for a recipe
    that measures no right answers in the course of training, for variants that train something else, and for values in
    place of those that every run has.
    """
    gpu = bool(seen_gpus())
    _check_own("--set", overrides)
    chosen = [_usable(variant) for variant in select(variants or (ON_GPU if gpu else ON_CPU), gpu=gpu)]
    trials = list(_trials(recipe, chosen, seeds, target, overrides))
    keys = {trial.key for trial in trials}
    found = [row for row in saved(out) if row.key in keys]
    machine = _machine()
    rows = kept(found, machine, minutes)
    left = [trial for trial in trials if trial.key not in rows]
    out.mkdir(parents=True, exist_ok=True)
    done = f", {len(trials) - len(left)} of them in {out / FILE} already" if len(left) < len(trials) else ""
    console.print(f"quality    {counted(len(trials), 'run')} to {target:.0%} right{done}", highlight=False)
    if others := [row for row in found if row not in machine]:
        told_of = f"{counted(len(others), 'row')} of {out / FILE}: {machine.others(others)}"
        console.print(f"not used   {told_of}", highlight=False, markup=False, soft_wrap=True)
    if left:
        _make_table(recipe, overrides, console)
    for number, trial in enumerate(left, 1):
        name = f"{trial.variant.name}, seed {trial.seed}"
        console.print(f"run        {number} of {len(left)}: {name}", highlight=False)
        row = _run(recipe, trial, target, minutes, out)
        rows[row.key] = row
        append_jsonl(out / FILE, [row])
        console.print(f"           {told(row, out)}", highlight=False, markup=False, soft_wrap=True)
    compared = [rows[trial.key] for trial in trials]
    show(compared, console)
    return all(row.status != "failed" for row in compared)


def _machine() -> Machine:
    gpus = seen_gpus()
    return Machine(gpus[0].name if gpus else cpu_name(), versions())


def _check_own(option: str, values: Sequence[str]) -> None:
    """Raise an `InputError` for values that would be put over without a word."""
    forced = {key: f"{key}={value}, as {why}" for key, (value, why) in FORCED.items()}
    forced[SEED] = f"the seeds 0, 1 and so on, as many as --seeds says, as {SEED}"
    problems = []
    for text in values:
        override = parse_override(text)
        named = list(_named(".".join(override.keys), override.value))
        for key, put in forced.items():
            if any(f"{name}.".startswith(f"{key}.") for name in named):  # an item of a list too
                problems.append(Problem(f"{option} {text}", f"--quality gives every run {put}; leave {key} out"))
    if problems:
        raise InputError(problems)


def _named(key: str, value: Any) -> Iterator[str]:
    """The keys that a value is put at: a table names several."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _named(f"{key}.{name}", inner)
    else:
        yield key


def _usable(variant: Variant) -> Variant:
    _check_own(f"--variants {variant.name}:", variant.own)
    if variant.trained != "adapter" or variant.full_logits or variant.one_batch:
        raise InputError(f"--variants {variant.name}: only `toolkit bench` itself can train so, --quality runs recipes")
    return variant


def _trials(
    recipe: Path, variants: Sequence[Variant], seeds: int, target: float, overrides: tuple[str, ...]
) -> Iterator[Trial]:
    """Seed after seed, so that what drifts with time hits all variants alike."""
    forced = [f"{key}={value}" for key, (value, _) in FORCED.items()]
    for seed in range(seeds):
        for variant in variants:
            own = (*overrides, *forced, *_of(variant), f"{SEED}={seed}")
            resolved = _measuring(load(recipe, own).recipe)
            described = [dump(resolved), _chats(resolved), f"{target:.6f}", variant.site or "", repr(variant.env)]
            yield Trial(variant, seed, own, resolved.eval.generate, sha256_of_text("\n".join(described))[:16])


def _chats(recipe: Recipe) -> str:
    """What the recipe's sources hold: the names of files say nothing of the chats that are in them today."""
    return data_key([*sources_of(recipe, "train"), *sources_of(recipe, "eval")])


def _of(variant: Variant) -> list[str]:
    """A variant's values, but for the dropout: a recipe's own decides quality."""
    usual = [value for value in variant.overrides if not value.startswith("lora.lora_dropout=")]
    return [f'train.engine="{variant.engine}"', *usual, *variant.own]


def _measuring(recipe: Recipe) -> Recipe:
    if not recipe.eval.by_calls:
        wanted = "--set eval.generate=200" if not recipe.eval.generate else "--set 'eval.generate_steps=\"eval\"'"
        raise InputError(f"--quality: the recipe measures no right answers in the course of training; {wanted}")
    return recipe


def _make_table(recipe: Path, overrides: tuple[str, ...], console: Console) -> None:
    """The token tables, once for all runs."""
    loaded = load(recipe, overrides).recipe
    started = time.perf_counter()
    folder = models.resolve(loaded.model)
    build(loaded, folder, "train")
    build(loaded, folder, "eval")
    console.print(f"table      {time.perf_counter() - started:.1f} s, not counted", highlight=False)


def _run(recipe: Path, trial: Trial, target: float, minutes: float, out: Path) -> Row:
    name = f"{slug(trial.variant.name)}-seed{trial.seed}"
    folder, log = out / "runs" / name, out / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a sitting that was broken off
    options = [part for value in trial.overrides for part in ("--set", value)]
    command = [sys.executable, "-m", "toolkit", "run", str(recipe), "--out", str(folder), *options]
    evaluations: list[Evaluation] = []
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=_environment(trial.variant))
        try:
            status = _watch(process, folder / "metrics.jsonl", evaluations, started, target, minutes)
            seconds = time.perf_counter() - started
        finally:
            _end(process)
    error = "" if status != "failed" else _last_line(log)
    reached = next((found for found in evaluations if _hit(found, target)), None)
    last = reached or (evaluations[-1] if evaluations else (seconds, 0, 0.0, math.nan))
    machine = _machine()
    row = Row(
        key=trial.key,
        variant=trial.variant.name,
        seed=trial.seed,
        target=target,
        status=status,
        seconds=round(reached[0] if reached else seconds, 2),
        update=last[1],
        right=last[2],
        answers=trial.answers,
        date=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        card=machine.card,
        versions=machine.versions,
        evaluations=evaluations,
        error=error,
        minutes=minutes,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return row


def _environment(variant: Variant) -> dict[str, str]:
    environment = {**os.environ, **dict(variant.env)}
    if variant.site:
        paths = [str(Path(variant.site).resolve()), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _watch(
    process: subprocess.Popen[bytes],
    metrics: Path,
    evaluations: list[Evaluation],
    started: float,
    target: float,
    minutes: float,
) -> Status:
    """Read the run's log as it grows, until the target is reached, the run ends or its time is over."""
    read = 0
    while True:
        ended = process.poll()
        now = time.perf_counter() - started
        if metrics.is_file():
            with metrics.open("rb") as file:
                file.seek(read)
                whole, _, _ = file.read().rpartition(b"\n")
            read += len(whole) + 1 if whole else 0
            for row in map(json.loads, filter(None, whole.split(b"\n"))):
                if row.get("eval_calls") is not None:
                    evaluations.append((round(now, 2), row["update"], row["eval_calls"], row["eval_loss"]))
        if any(_hit(found, target) for found in evaluations):
            return "reached"
        if ended is not None:
            return "failed" if ended else "ended"
        if now > 60 * minutes:
            return "time"
        time.sleep(POLL)


def _hit(evaluation: Evaluation, target: float) -> bool:
    """The target was reached by training: what the model could do before is no run's merit."""
    return evaluation[1] > 0 and evaluation[2] >= target


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    if process.poll() is None:
        process.kill()
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1])[:300] if lines else ""
