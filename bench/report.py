"""A bench's figures as a Rich table, as Markdown and as a table for a page."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.kernels import IDLE, by_kind
from bench.results import Arm, Results
from bench.roofline import predicted, target
from toolkit.cache import write_text
from toolkit.errors import InputError
from toolkit.planning.calibration import FORMULA, Pair, PastError, error_of
from toolkit.planning.cost import rates_of

if TYPE_CHECKING:
    from rich.console import Console

GIB = 2**30
BEGIN, END = "<!-- bench table: begin -->", "<!-- bench table: end -->"
COLUMNS = (
    "variant",
    "peak GiB",
    "reserved GiB",
    "driver GiB",
    "planned GiB",
    "s an update",
    "real tokens/s",
    "of product",
    "load s",
    "gates",
)
DETAILS = ("reserved GiB", "driver GiB", "planned GiB", "of product", "load s")
WIDE = 130
PREDICTED = "s on {} (predicted)"


def rows(results: Results) -> list[list[str]]:
    """A line of text cells for each variant, in `COLUMNS` and, under another card's profile, the prediction."""
    return [_row(results, arm) for arm in results.arms.values()]


def _row(results: Results, arm: Arm) -> list[str]:
    name = arm.variant
    if arm.status != "measured":
        cells = [name, f"{arm.status} ({arm.stage})", *[""] * (len(COLUMNS) - 2)]
        return [*cells, ""] if predicts(results) else cells
    failed = results.failed_gates(name)
    total = sum(gate.variant == name for gate in results.gates)
    cells = [
        name,
        gib(results.peak(name)),
        gib(results.reserved(name)) if results.cuda else "",
        gib(arm.driver),
        gib(arm.predicted_memory),
        str(results.seconds(name) or ""),
        number(results.throughput(name)),
        share(results.utilisation(name)),
        f"{arm.load_seconds:.1f}",
        f"{len(failed)} of {total} failed" if failed else f"{total} passed",
    ]
    if predicts(results):
        told = predicted(results, name)
        cells.append(f"{told.seconds:.1f} ({told.least:.1f}-{told.most:.1f})" if told else "")
    return cells


def predicts(results: Results) -> bool:
    """Whether the run was under another card's profile, so that its times are predictions for that card."""
    return results.cuda and results.run.get("cap") is not None


def columns(results: Results) -> list[str]:
    if not predicts(results):
        return list(COLUMNS)
    # what was timed is the card that is here, in the other's precision
    here = [f"{column} on {results.run['card']}" if column == "s an update" else column for column in COLUMNS]
    return [*here, PREDICTED.format(results.run["profile"])]


def gib(size: float | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def heading(results: Results) -> str:
    """One line: model, shape, profile, device."""
    run = results.run
    imposed = f", as a {run['profile']} ({gib(run['cap'])} GiB at most)" if run.get("cap") else ""
    return f"{run['model']}, {run['shape']}, on {results.device}{imposed}"


def show(results: Results, console: Console) -> None:
    """Print the table and every gate that failed."""
    from rich.table import Table

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


def notes(results: Results) -> list[str]:
    """What the figures are, and what they are not."""
    run, settings = results.run, results.run["settings"]
    memory = (
        "peak and reserved are torch's, driver is the whole process as the driver sees it"
        if results.cuda
        else "peak is the whole process's resident memory, Python and its libraries included"
    )
    lines = [
        f"s an update: median (least-greatest) of {settings['turns']} turns of {settings['updates']}, after "
        f"{settings['warmup']} warm-up updates; variants take turns. {memory}.",
        "of product: the update's FLOP/s, padding included, over those of a large matrix product measured beside it.",
    ]
    if run["shape"] == "real":
        lines.append(
            "Updates have chats of their own, the same for every variant: least and greatest differ by them too."
        )
    if (planned := planner_error(results)) is not None:
        lines.append(f"planned GiB is what `toolkit plan`'s formulas say: {planned}.")
    if predicts(results):
        lines.append(
            f"s on {run['profile']} is PREDICTED, not measured, by the formula of `toolkit plan`: products, attention, "
            "what the kernels between them move and unpacking of NF4, or the host's launches where they take longer"
            f"{sustained(results)}; in brackets with products at the most and the least of it."
        )
        errors = [found.error for name in results.arms if (found := predicted(results, name)) is not None]
        if errors:
            lines.append(
                f"The same formula for the card measured is off by {min(errors):+.0%} to {max(errors):+.0%}, "
                f"{statistics.median(map(abs, errors)):.0%} in the median."
            )
    return lines


def sustained(results: Results) -> str:
    """What the other card is taken to sustain."""
    card = target(results)
    rates = rates_of(card, "fp16") if card is not None else None
    if card is None or rates is None or rates.memory is None:
        return ""
    return (
        f" ({rates.products / 1e12:.3g} TFLOP/s in products, {rates.memory / 1e9:.0f} GB/s, "
        f"{rates.attention / 1e12:.2g} TFLOP/s in attention)"
    )


def planner_error(results: Results) -> PastError | None:
    """How far the planner was off over all variants of this run."""
    return error_of(pairs(results))


def pairs(results: Results) -> list[Pair]:
    """What was predicted and measured of each variant."""
    found = []
    for name, arm in results.arms.items():
        peak, seconds = results.peak(name), results.seconds(name)
        if arm.status != "measured" or arm.predicted_memory is None or peak is None or seconds is None:
            continue
        found.append(
            Pair(
                date=results.run["date"],
                card=results.run["card"],
                engine=arm.engine if arm.trained == "adapter" else "full",
                variant=name,
                shape=results.run["shape"],
                model=results.run["model"],
                predicted_memory=arm.predicted_memory,
                measured_memory=peak,
                predicted_seconds=arm.predicted_seconds,
                measured_seconds=seconds.median,
                formula=FORMULA,
            )
        )
    return found


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
        *table(["variant", *PARTS, "everything else at the peak"], [_parts(results, a) for a in _measured(results)]),
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


def kernel_lines(results: Results) -> list[str]:
    """Milliseconds an update by what kernels do, and each variant's longest kernels."""
    if not results.kernels:
        return []
    names = list(dict.fromkeys(kernel.variant for kernel in results.kernels))
    kinds = by_kind(results.kernels)
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
PARTS = ("frozen weights", "trained weights", "gradients", "optimizer states")


def _measured(results: Results) -> list[Arm]:
    return [arm for arm in results.arms.values() if arm.status == "measured"]


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
    told = f"Measured on {several[0].device}, {several[0].run['date'][:10]}; made by `{command}`."
    return "\n".join([*table(head, body), "", told])


def _short(results: Results, name: str) -> list[str]:
    arm = results.arms.get(name)
    if arm is None:
        return ["", ""]
    if arm.status != "measured":
        return [arm.status, ""]
    if predicts(results):
        told = predicted(results, name)
        return [gib(results.peak(name)), f"{told.seconds:.1f}" if told else ""]
    return [gib(results.peak(name)), number(results.throughput(name))]


def put_between_markers(path: Path, text: str) -> None:
    """Replace what is between the table's markers in `path`. Raises `InputError` where they are not."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(page):
        raise InputError(f"{path}: wanted a line {BEGIN} and, below it, a line {END}")
    write_text(path, pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page))
