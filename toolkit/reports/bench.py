"""A bench's results as a report shows them: a table, what its figures are, and plots."""

from __future__ import annotations

import statistics

from markupsafe import Markup

from toolkit.bench_results import Arm, Results
from toolkit.pages.bars import Row, horizontal_bars
from toolkit.planning.calibration import FORMULA, Pair, PastError, error_of
from toolkit.planning.cost import rates_of
from toolkit.reports.bench_prediction import predicted, target

GIB = 2**30
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
PREDICTED = "s on {} (predicted)"
PARTS = ("frozen weights", "trained weights", "gradients", "optimizer states")
SHOWN_PARTS = (*PARTS, "activations and the rest")
BAR = "var(--bar)"


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
        prediction = predicted(results, name)
        cells.append(f"{prediction.seconds:.1f} ({prediction.least:.1f}-{prediction.most:.1f})" if prediction else "")
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


def measured(results: Results) -> list[Arm]:
    """The arms whose figures mean something."""
    return [arm for arm in results.arms.values() if arm.status == "measured"]


def memory_plot(results: Results) -> Markup:
    """Stacked bars: static parts from the tensors, then what is left up to the peak."""
    rows = []
    for arm in measured(results):
        peak = results.peak(arm.variant) or 0
        parts = [arm.parts.get(part, 0) for part in PARTS]
        sizes = zip(SHOWN_PARTS, [*parts, max(0, peak - sum(parts))], strict=True)
        shown = [
            (size / GIB, f"var(--p{i})", f"{arm.variant}: {part} {gib(size)} GiB")
            for i, (part, size) in enumerate(sizes)
        ]
        rows.append(Row(arm.variant, gib(peak), shown))
    return horizontal_bars("peak memory by part", rows, [(f"var(--p{i})", part) for i, part in enumerate(SHOWN_PARTS)])


def speed_plot(results: Results) -> Markup:
    rows = []
    for arm in measured(results):
        value = results.throughput(arm.variant) or 0.0
        title = f"{arm.variant}: {value:,.0f} real tokens a second"
        rows.append(Row(arm.variant, f"{value:,.0f}", [(value, BAR, title)]))
    return horizontal_bars("real tokens a second", rows)


def time_plot(results: Results) -> Markup:
    rows = []
    for arm in measured(results):
        if (found := results.seconds(arm.variant)) is not None:
            title = f"{arm.variant}: {found} s over {found.count} updates"
            rows.append(Row(arm.variant, f"{found.median:.3f}", [(found.median, BAR, title)], (found.low, found.high)))
    return horizontal_bars("seconds an update", rows)
