"""`toolkit bench --claims`: gather what is known on this machine, check every claim, print the table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.claims import check_all, complete
from bench.evidence import Claim, Evidence, Finding
from bench.report import table as markdown_table
from toolkit import models
from toolkit.bench_results import FILE, Results
from toolkit.engines.recipes import load
from toolkit.errors import InputError
from toolkit.models.families import load_shape
from toolkit.planning.cards import seen_gpus
from toolkit.recipe.schema import Recipe
from toolkit.runs import command_line

if TYPE_CHECKING:
    from rich.console import Console

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
        from toolkit.cache import write_text

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
    from toolkit.data.table import build

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
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What the chapter says, checked", title_justify="left", pad_edge=False, show_lines=True)
    for name in ("claim", "verdict", "found", "conditions"):
        table.add_column(name, no_wrap=name == "verdict")
    for claim, finding in findings:
        verdict = Text(finding.verdict, style=COLOURS[finding.verdict])
        table.add_row(claim.said, verdict, finding.found, finding.conditions)
    console.print(table)
    counts = [f"{sum(f.verdict == verdict for _, f in findings)} {verdict}" for verdict in COLOURS]
    console.print(f"{len(findings)} claims: {', '.join(counts)}", highlight=False)
    missed = [claim.name for claim, f in findings if f.verdict == "not checked here" and f.checkable]
    if missed:
        console.print(f"could be checked on this machine and were not: {', '.join(missed)}", highlight=False)


def page(findings: Sequence[tuple[Claim, Finding]]) -> str:
    """The table as Markdown."""
    body = [[claim.said, f"**{f.verdict}**", f.found, f.conditions] for claim, f in findings]
    head = ["claim", "verdict", "found", "conditions"]
    lines = markdown_table(head, body)
    lines[1] = "|---|---|---|---|"
    return "\n".join(["# What the chapter says, checked", "", f"`{command_line()}`", "", *lines, ""])
