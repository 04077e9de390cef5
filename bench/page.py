"""A bench as one web page: tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bench import report
from bench.results import Arm, Results
from toolkit.pages.bars import Row, horizontal_bars
from toolkit.pages.page import render

PARTS = (*report.PARTS, "activations and the rest")
BAR = "var(--bar)"


def page(several: Sequence[Results]) -> str:
    """The whole page for one run or several."""
    title = report.heading(several[0])
    return render("bench.html", "toolkit bench", title=title, width="widest", benches=[_shown(one) for one in several])


def _shown(results: Results) -> dict[str, Any]:
    run = results.run
    failed = results.failed_gates()
    return {
        "heading": report.heading(results),
        "date": run["date"],
        "command": run["command"],
        "columns": report.columns(results),
        "rows": report.rows(results),
        "notes": report.notes(results),
        "gates": f"{len(results.gates) - len(failed)} of {len(results.gates)}",
        "failed": [f"{gate.variant}: {gate.name}: {gate.detail}" for gate in failed],
        "plots": [
            ("Peak memory by part, GiB", memory_plot(results)),
            ("Real tokens a second", speed_plot(results)),
            ("Seconds an update: median, and the least and greatest of all repeats", time_plot(results)),
        ],
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }


def memory_plot(results: Results) -> Markup:
    """Stacked bars: static parts from the tensors, then what is left up to the peak."""
    rows = []
    for arm in _measured(results):
        peak = results.peak(arm.variant) or 0
        parts = [arm.parts.get(part, 0) for part in report.PARTS]
        sizes = zip(PARTS, [*parts, max(0, peak - sum(parts))], strict=True)
        shown = [
            (size / report.GIB, f"var(--p{i})", f"{arm.variant}: {part} {report.gib(size)} GiB")
            for i, (part, size) in enumerate(sizes)
        ]
        rows.append(Row(arm.variant, report.gib(peak), shown))
    return horizontal_bars("peak memory by part", rows, [(f"var(--p{i})", part) for i, part in enumerate(PARTS)])


def speed_plot(results: Results) -> Markup:
    rows = []
    for arm in _measured(results):
        value = results.throughput(arm.variant) or 0.0
        told = f"{arm.variant}: {value:,.0f} real tokens a second"
        rows.append(Row(arm.variant, f"{value:,.0f}", [(value, BAR, told)]))
    return horizontal_bars("real tokens a second", rows)


def time_plot(results: Results) -> Markup:
    rows = []
    for arm in _measured(results):
        if (found := results.seconds(arm.variant)) is not None:
            told = f"{arm.variant}: {found} s over {found.count} updates"
            rows.append(Row(arm.variant, f"{found.median:.3f}", [(found.median, BAR, told)], (found.low, found.high)))
    return horizontal_bars("seconds an update", rows)


def _measured(results: Results) -> list[Arm]:
    return [arm for arm in results.arms.values() if arm.status == "measured"]
