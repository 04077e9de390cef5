"""What a bench measured, in the terminal, as Markdown, as a web page and as a table for a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from toolkit.bench_results import IDLE, Arm, Results
from toolkit.errors import InputError
from toolkit.files import write_text
from toolkit.pages.page import render
from toolkit.reports.bench import (
    PARTS,
    columns,
    gib,
    heading,
    measured,
    memory_plot,
    notes,
    number,
    predicts,
    rows,
    speed_plot,
    time_plot,
)
from toolkit.reports.bench_prediction import predicted

BEGIN, END = "<!-- bench table: begin -->", "<!-- bench table: end -->"
DETAILS = ("reserved GiB", "driver GiB", "planned GiB", "of product", "load s")
WIDE = 130


def show(results: Results, console: Console) -> None:
    """Print the table and every gate that failed."""
    table = Table(title=heading(results), title_justify="left", box=None, pad_edge=False)
    head = columns(results)
    # a narrow terminal gets the most telling columns; the files have them all
    shown = [i for i, column in enumerate(head) if console.width >= WIDE or column not in DETAILS]
    for i in shown:
        table.add_column(head[i], justify="left" if i == 0 else "right", no_wrap=i == 0)
    for cells in rows(results):
        table.add_row(*(cells[i] for i in shown))
    console.print(table)
    for note in notes(results):
        console.print(note, highlight=False, markup=False)
    for gate in results.failed_gates():
        console.print(f"gate failed  {gate.variant}: {gate.name}: {gate.detail}", highlight=False, markup=False)


def markdown(results: Results) -> str:
    """A page: what, where, the table, notes, gates, variants, versions, the command."""
    run = results.run
    gpu = run["hardware"].get("gpu") or {}
    hardware = ", ".join(f"{key} {value}" for key, value in gpu.items() if key not in ("name", "memory"))
    lines = [
        f"# {heading(results)}",
        "",
        f"{run['date']} UTC, {run.get('seconds', 0):.0f} s in all. `{run['command']}`",
        "",
        f"Hardware: {results.device}{f' ({hardware})' if hardware else ''}; {run['hardware']['cpu']}, "
        f"{run['hardware']['cores']} cores.",
        "",
        *table(columns(results), rows(results)),
        "",
        *[f"- {note}" for note in notes(results)],
        "",
        "## Memory at rest, by part",
        "",
        *table(["variant", *PARTS, "everything else at the peak"], [_parts(results, a) for a in measured(results)]),
        "",
        *kernel_lines(results),
        "## Variants",
        "",
        *[f"- `{arm.variant}`: {arm.title}{_ended(arm)}" for arm in results.arms.values()],
        "",
        "## Gates",
        "",
        *_gate_lines(results),
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in _versions(results).items()),
        "",
    ]
    return "\n".join(lines)


def page(several: Sequence[Results]) -> str:
    """The whole page for one run or several."""
    title = heading(several[0])
    return render("bench.html", "toolkit bench", title=title, width="widest", benches=[_shown(one) for one in several])


def _shown(results: Results) -> dict[str, Any]:
    run = results.run
    failed = results.failed_gates()
    return {
        "heading": heading(results),
        "date": run["date"],
        "command": run["command"],
        "columns": columns(results),
        "rows": rows(results),
        "notes": notes(results),
        "gates": f"{len(results.gates) - len(failed)} of {len(results.gates)}",
        "failed": [f"{gate.variant}: {gate.name}: {gate.detail}" for gate in failed],
        "plots": [
            ("Peak memory by part, GiB", memory_plot(results)),
            ("Real tokens a second", speed_plot(results)),
            ("Seconds an update: median, and the least and greatest of all repeats", time_plot(results)),
        ],
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }


def kernel_lines(results: Results) -> list[str]:
    """Milliseconds an update by what kernels do, and each variant's longest kernels."""
    if not results.kernels:
        return []
    names = list(dict.fromkeys(kernel.variant for kernel in results.kernels))
    kinds = results.by_kind()
    body = [[kind, *(_milliseconds(kinds[kind].get(name)) for name in names)] for kind in kinds]
    sums = [sum(kinds[kind].get(name, 0.0) for kind in kinds if kind != IDLE) for name in names]
    lines = ["## Where an update's time goes", "", "Milliseconds of kernels an update, under torch's profiler.", ""]
    lines += [*table(["what", *names], [*body, ["all kernels", *map(_milliseconds, sums)]]), ""]
    for name in names:
        mine = [kernel for kernel in results.kernels if kernel.variant == name and kernel.kind != IDLE][:LISTED]
        shown = [[f"`{kernel.name[:NAME]}`", f"{kernel.calls:g}", _milliseconds(kernel.seconds)] for kernel in mine]
        lines += [f"`{name}`:", "", *table(["kernel", "calls", "ms"], shown), ""]
    return lines


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.2f}"


LISTED, NAME = 40, 100  # kernels of a variant, and characters of a name, that a page shows


def _parts(results: Results, arm: Arm) -> list[str]:
    peak = results.peak(arm.variant) or 0
    rest = peak - sum(arm.parts.values())
    return [arm.variant, *(f"{gib(arm.parts.get(part))} GiB" for part in PARTS), f"{gib(rest)} GiB"]


def _ended(arm: Arm) -> str:
    if arm.status != "measured":
        return f" ({arm.status} while {arm.stage}: {arm.message[:160]})"
    return f" (CUDA graphs given up: {arm.not_recorded[:160]})" if arm.not_recorded else ""


def _gate_lines(results: Results) -> list[str]:
    failed = results.failed_gates()
    lines = [f"{len(results.gates) - len(failed)} of {len(results.gates)} passed."]
    lines += [f"- FAILED `{gate.variant}` {gate.name}: {gate.detail}" for gate in failed]
    names = dict.fromkeys(gate.name for gate in results.gates)
    lines += [f"- {name}: {_worst(results, name)}" for name in names]
    return lines


def _worst(results: Results, name: str) -> str:
    found = [gate for gate in results.gates if gate.name == name]
    return (
        f"{sum(gate.passed for gate in found)} of {len(found)}; for example `{found[-1].variant}`: {found[-1].detail}"
    )


def _versions(results: Results) -> dict[str, str]:
    found: dict[str, str] = dict(results.run["versions"])
    for arm in results.arms.values():
        found.update(arm.versions)
    return found


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are set right."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in body),
    ]


def readme_table(several: Sequence[Results], sources: Sequence[str]) -> str:
    """A table for a page, as docs/bench.md has it: each variant once, memory and speed of every run side by side.

    `sources`: the files that it is made from.
    """
    names = dict.fromkeys(name for results in several for name in results.arms)
    head = ["variant"]
    for results in several:
        where = f"{results.run['shape']}, {results.run['profile']}"
        time = f"{where}: tokens/s" if not predicts(results) else f"{where}: s (predicted)"
        head += [f"{where}: GiB", time]
    body = []
    for name in names:
        cells = [name]
        for results in several:
            cells += _short(results, name)
        if any(cells[1:]):
            body.append(cells)
    command = f"toolkit bench table {' '.join(sources)}"
    caption = f"Measured on {several[0].device}, {several[0].run['date'][:10]}; made by `{command}`."
    return "\n".join([*table(head, body), "", caption])


def _short(results: Results, name: str) -> list[str]:
    arm = results.arms.get(name)
    if arm is None:
        return ["", ""]
    if arm.status != "measured":
        return [arm.status, ""]
    if predicts(results):
        prediction = predicted(results, name)
        return [gib(results.peak(name)), f"{prediction.seconds:.1f}" if prediction else ""]
    return [gib(results.peak(name)), number(results.throughput(name))]


def put_between_markers(path: Path, text: str) -> None:
    """Replace what is between the table's markers in `path`. Raises `InputError` where they are not."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(page):
        raise InputError(f"{path}: wanted a line {BEGIN} and, below it, a line {END}")
    write_text(path, pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page))
