"""What the training chapter says in figures, each with a check, in the chapter's order; `toolkit bench --claims`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import derivations, measurements
from bench.measurements import Evidence, Finding
from bench.report import table as markdown_table
from toolkit import models
from toolkit.bench_results import FILE, Results
from toolkit.data.table import build
from toolkit.engines.recipes import load
from toolkit.errors import InputError
from toolkit.files import write_text
from toolkit.models.families import load_shape
from toolkit.planning.cards import seen_gpus
from toolkit.recipe.schema import Recipe
from toolkit.runs import command_line


@dataclass(frozen=True, slots=True)
class Claim:
    """`statement`: the chapter's words in short. `check` derives or measures."""

    name: str
    statement: str
    check: Callable[[Evidence], Finding]


CLAIMS: tuple[Claim, ...] = (
    Claim("weights", "Model weights 4 GB: 2B params x 2 bytes", derivations.weights),
    Claim("gradients", "Gradients 4 GB", derivations.gradients),
    Claim("adam", "Optimizer states 16 GB: Adam keeps 2 copies per param", derivations.adam),
    Claim("full total", "Full fine-tuning takes 24 GB", measurements.full_total),
    Claim("full does not fit", "Full fine-tuning doesn't fit on a T4 (16 GB)", derivations.no_t4),
    Claim("lora layer", "LoRA on a 2048 x 2048 layer: 65,536 parameters, 1.6%", derivations.layer_parameters),
    Claim("lora memory", "LoRA trains in ~5 GB", measurements.lora_memory),
    Claim("lora fits", "LoRA fits on a T4", measurements.lora_fits),
    Claim("vocabulary", "A vocabulary of ~100,000 tokens", derivations.vocabulary),
    Claim("logarithms", "-log(0.45) = 0.80, -log(0.99) = 0.01", derivations.logarithms),
    Claim("tenth", "Full fine-tuning's learning rate (2e-5) is a tenth of LoRA's", derivations.tenth),
    Claim("hundred times", "LoRA has 100x fewer parameters", derivations.hundred_times),
    Claim("four at once", "The GPU can only fit 4 examples at once", measurements.four_at_once),
    Claim("accumulation", "Accumulation is slower (4x more forward passes per update)", measurements.accumulation),
    Claim("schedule", "Warm-up over 10%, then a cosine down to 0, as drawn", derivations.schedule),
    Claim("lengths", "Most chats under 1,000 tokens, all within 2,048", measurements.lengths),
    Claim("checkpointing", "Checkpointing: 8 GB to 5 GB, saves ~40%", measurements.checkpointing),
    Claim("sample log", "The sample log counts 245 steps", derivations.sample_log),
    Claim("sample rates", "The sample log's learning rates", derivations.sample_rates),
    Claim("first loss", "Initial loss ~2.5-3.5", measurements.first_loss),
    Claim("last loss", "Final loss ~0.8-1.2", measurements.last_loss),
    Claim("updates", "~980 steps per epoch, ~2,940 in all", derivations.update_counts),
    Claim("update time", "2-3 seconds a step on a T4", measurements.update_time),
    Claim("hours", "2,940 x 2.5 s = ~2 hours on a T4", derivations.hours),
    Claim("cost", "~2 hours at ~$0.60/hour = $1.20", derivations.cost),
)


def check_all(evidence: Evidence) -> list[tuple[Claim, Finding]]:
    return [(claim, claim.check(evidence)) for claim in CLAIMS]


def complete(findings: list[tuple[Claim, Finding]]) -> bool:
    """Whether every claim that this machine can check was checked."""
    return not any(finding.verdict == "not checked here" and finding.checkable for _, finding in findings)


RECIPE = Path("recipes/tools.toml")
BELOW = Path("runs/bench")
COLOURS = {"holds": "green", "holds if": "yellow", "does not hold": "red", "not checked here": "dim"}


def check_claims(
    recipe: Path | None,
    overrides: tuple[str, ...],
    files: Sequence[Path] | None,
    run: Path | None,
    console: Console,
    markdown: Path | None = None,
) -> bool:
    """Print every claim with its verdict; False when one could have been checked here and was not."""
    findings = check_all(gather(recipe or RECIPE, overrides, files, run))
    show(findings, console)
    if markdown is not None:
        write_text(markdown, page(findings))
    return complete(findings)


def gather(recipe: Path, overrides: tuple[str, ...], files: Sequence[Path] | None, run: Path | None) -> Evidence:
    """Everything there is to check claims against. Raises an `InputError` for files that are not what they seem."""
    settings = load(recipe, overrides).recipe
    shape = load_shape(settings.model)
    found = [Results.load(path) for path in (files if files else sorted(BELOW.glob(f"*/{FILE}")))]
    results = [one for one in found if one.run.get("parameters") == shape.parameters]
    if files and not results:
        raise InputError(f"--results: none of them is of a model with {shape.parameters:,} parameters")
    folder = models.find(settings.model)
    return Evidence(
        recipe=settings,
        shape=shape,
        results=sorted(results, key=lambda one: str(one.run["date"]), reverse=True),
        gpu=bool(seen_gpus()),
        table=_table(settings, folder),
        tokenizer_here=folder is not None,
        run=_summary(run, settings) if run is not None else None,
    )


def _table(recipe: Recipe, folder: Path | None) -> Any:
    if folder is None:
        return None
    return build(recipe, folder, "train")


def _summary(run: Path, recipe: Recipe) -> dict[str, Any]:
    path = run / "summary.json"
    if not path.is_file():
        raise InputError(f"--run {run}: no finished run (no summary.json in it)")
    theirs = load(run / "recipe.toml").recipe
    if load_shape(theirs.model).parameters != load_shape(recipe.model).parameters:
        raise InputError(f"--run {run}: trained {theirs.model.name}, the claims are about {recipe.model.name}")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def show(findings: Sequence[tuple[Claim, Finding]], console: Console) -> None:
    table = Table(title="What the chapter says, checked", title_justify="left", pad_edge=False, show_lines=True)
    for name in ("claim", "verdict", "found", "conditions"):
        table.add_column(name, no_wrap=name == "verdict")
    for claim, finding in findings:
        verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
        table.add_row(claim.statement, verdict, finding.found, finding.conditions)
    console.print(table)
    counts = [f"{sum(f.verdict == verdict for _, f in findings)} {verdict}" for verdict in COLOURS]
    console.print(f"{len(findings)} claims: {', '.join(counts)}", highlight=False)
    missed = [claim.name for claim, f in findings if f.verdict == "not checked here" and f.checkable]
    if missed:
        console.print(f"could be checked on this machine and were not: {', '.join(missed)}", highlight=False)


def page(findings: Sequence[tuple[Claim, Finding]]) -> str:
    """The table as Markdown."""
    body = [[claim.statement, f"**{f.verdict}**", f.found, f.conditions] for claim, f in findings]
    head = ["claim", "verdict", "found", "conditions"]
    lines = markdown_table(head, body)
    lines[1] = "|---|---|---|---|"
    return "\n".join(["# What the chapter says, checked", "", f"`{command_line()}`", "", *lines, ""])
