"""A bench as one web page: tables and plots, inline SVG, no file or address from outside, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench import report
from bench.results import Arm, Results
from toolkit.reports.plots import PALETTE, Scale, table

STYLE = (
    PALETTE
    + """
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 92rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } p, li { color: var(--soft); max-width: 60rem; }
.bad { color: var(--bad); } svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .range { stroke: var(--ink); stroke-width: 2; }
code { overflow-wrap: anywhere; }
"""
)
WIDTH, LABEL, ROW, BAR = 900, 210, 26, 16
PLOT = WIDTH - LABEL - 110  # the rest is for the figure at a bar's end
PARTS = (*report.PARTS, "activations and the rest")


def page(several: Sequence[Results]) -> str:
    """The whole page for one run or several."""
    body = "\n".join(_section(results) for results in several)
    title = report.heading(several[0])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Memory and speed of ways to train</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(results: Results) -> str:
    run = results.run
    failed = "".join(
        f'<li class="bad">{escape(f"{g.variant}: {g.name}: {g.detail}")}</li>' for g in results.failed_gates()
    )
    passed = len(results.gates) - len(results.failed_gates())
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return "\n".join(
        [
            f"<h2>{escape(report.heading(results))}</h2>",
            f"<p>{escape(run['date'])} UTC. <code>{escape(run['command'])}</code></p>",
            table(report.columns(results), report.rows(results)),
            "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes(results)) + "</ul>",
            f"<p>{passed} of {len(results.gates)} gates passed.</p>" + (f"<ul>{failed}</ul>" if failed else ""),
            "<h3>Peak memory by part, GiB</h3>",
            memory_plot(results),
            "<h3>Real tokens a second</h3>",
            speed_plot(results),
            "<h3>Seconds an update: median, and the least and greatest of all repeats</h3>",
            time_plot(results),
            f"<p>{escape(versions)}</p>",
        ]
    )


def memory_plot(results: Results) -> str:
    """Stacked bars: static parts from the tensors, then what is left up to the peak."""
    arms = _measured(results)
    peaks = [results.peak(arm.variant) or 0 for arm in arms]
    scale = Scale(0.0, max(peaks, default=0) / report.GIB)
    bars = []
    for i, (arm, peak) in enumerate(zip(arms, peaks, strict=True)):
        parts = [arm.parts.get(part, 0) for part in report.PARTS]
        left = float(LABEL)
        shapes = []
        for j, size in enumerate([*parts, max(0, peak - sum(parts))]):
            width = PLOT * scale.share(size / report.GIB)
            told = f"{arm.variant}: {PARTS[j]} {report.gib(size)} GiB"
            shapes.append(_rect(left, i, width, f"var(--p{j})", told))
            left += width
        bars.append(_line(arm, i, "".join(shapes), report.gib(peak), left))
    legend = "".join(
        f'<rect x="{LABEL + 170 * (j % 4)}" y="{4 + 18 * (j // 4)}" width="11" height="11" fill="var(--p{j})"/>'
        f'<text x="{LABEL + 170 * (j % 4) + 16}" y="{14 + 18 * (j // 4)}">{part}</text>'
        for j, part in enumerate(PARTS)
    )
    return _svg(arms, bars, scale, "peak memory by part", legend)


def speed_plot(results: Results) -> str:
    arms = _measured(results)
    values = [results.throughput(arm.variant) or 0.0 for arm in arms]
    scale = Scale(0.0, max(values, default=0.0))
    bars = []
    for i, (arm, value) in enumerate(zip(arms, values, strict=True)):
        width = PLOT * scale.share(value)
        told = f"{arm.variant}: {value:,.0f} real tokens a second"
        bars.append(_line(arm, i, _rect(LABEL, i, width, "var(--bar)", told), f"{value:,.0f}", LABEL + width))
    return _svg(arms, bars, scale, "real tokens a second")


def time_plot(results: Results) -> str:
    arms = _measured(results)
    spreads = [(arm, found) for arm in arms if (found := results.seconds(arm.variant)) is not None]
    scale = Scale(0.0, max((found.high for _, found in spreads), default=0.0))
    bars = []
    for i, (arm, found) in enumerate(spreads):
        y = i * ROW + ROW / 2
        low, middle, high = (LABEL + PLOT * scale.share(value) for value in (found.low, found.median, found.high))
        shapes = (
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{middle:.1f}" cy="{y}" r="5" fill="var(--bar)"><title>'
            f"{escape(arm.variant)}: {escape(str(found))} s over {found.count} updates</title></circle>"
        )
        bars.append(_line(arm, i, shapes, f"{found.median:.3f}", high + 4))
    return _svg([arm for arm, _ in spreads], bars, scale, "seconds an update")


def _measured(results: Results) -> list[Arm]:
    return [arm for arm in results.arms.values() if arm.status == "measured"]


def _rect(x: float, row: int, width: float, fill: str, told: str) -> str:
    y = row * ROW + (ROW - BAR) / 2
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0):.1f}" height="{BAR}" fill="{fill}">'
        f"<title>{escape(told)}</title></rect>"
    )


def _line(arm: Arm, row: int, shapes: str, figure: str, end: float) -> str:
    y = row * ROW + ROW / 2 + 4
    return (
        f'<text x="{LABEL - 8}" y="{y}" text-anchor="end">{escape(arm.variant)}</text>{shapes}'
        f'<text class="soft" x="{end + 6:.1f}" y="{y}">{escape(figure)}</text>'
    )


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def _svg(arms: Sequence[Arm], bars: Sequence[str], scale: Scale, label: str, legend: str = "") -> str:
    top = 44 if legend else 6
    height = len(arms) * ROW
    ticks = [(t, f"{LABEL + PLOT * scale.share(t):.1f}") for t in scale.ticks()]
    grid = "".join(
        f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/>'
        f'<text class="soft" x="{x}" y="{height + 16}" text-anchor="middle">{_tick(t)}</text>'
        for t, x in ticks
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {top + height + 24}" width="{WIDTH}" role="img" aria-label="{escape(label)}">'
        f"{legend}"
        f'<g transform="translate(0 {top})">{grid}{"".join(bars)}</g></svg>'
    )
