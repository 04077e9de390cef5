"""Line charts: a stretched SVG for the shapes, and real text around it, so that words keep their size on a phone.

Every series has its own dash and marker beside its colour; every chart has a text alternative and its numbers as a
table. Text is escaped here; what comes out is marked as safe for the templates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from toolkit.pages.axes import SIDE, Scale, dot, horizontal, key, number, stroke, x_labels, y_labels
from toolkit.pages.page import details

MOST_POINTS = 600
MOST_LISTED = 40
Points = npt.NDArray[np.float64]  # (n, 2): x and y, n of them
LOG_FROM = 8.0  # times the least value: from here on, a logarithmic axis shows more


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `style` picks colour, dash and marker; `points` draws a marker at every value; `faint` the line thin."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: int = 0
    points: bool = False
    faint: bool = False

    def known(self) -> Points:
        """The points of which both numbers are finite. Raises `ValueError` where there are not as many xs as ys."""
        points = np.stack([np.asarray(self.xs, dtype=float), np.asarray(self.ys, dtype=float)], axis=1)
        return points[np.isfinite(points).all(axis=1)]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x`, with a word above it where there is one."""

    x: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart. `shaded` is a stretch of x, with its name; `until` is on the axis of x though no value is there."""

    title: str
    series: Sequence[Series]
    x_label: str = "update"
    unit: str = ""
    log: bool = False
    zero: bool = False
    marks: Sequence[Mark] = ()
    shaded: tuple[float, float, str] | None = None
    note: str = ""
    height: int = 240
    until: float = 0.0


def line_chart(chart: Chart) -> Markup:
    """The chart, its legend, its text alternative and its numbers. An empty string where no value is known."""
    drawn = [(series, known) for series in chart.series if len(known := series.known())]
    if not drawn:
        return Markup("")
    every = np.concatenate([known for _, known in drawn])
    lows, highs = every.min(axis=0).tolist(), every.max(axis=0).tolist()
    x_scale = Scale(min(0.0, lows[0]), max(chart.until, highs[0]), count=6)
    log = chart.log and lows[1] > 0 and highs[1] / lows[1] >= LOG_FROM
    y_scale = _y_scale(lows[1], highs[1], log, chart.zero)
    thinned = [_thinned(known) for _, known in drawn]
    shapes = [_grid(x_scale, y_scale), _shade(chart, x_scale), _marks(chart, x_scale)]
    shapes += [_line(series, points, x_scale, y_scale) for (series, _), points in zip(drawn, thinned, strict=True)]
    told = _told(chart, drawn)
    data = escape(_data([series for series, _ in drawn], thinned, chart.x_label, x_scale))
    aside = ", ".join(part for part in (chart.unit, "logarithmic axis" if log else "") if part)
    rising = y_scale.share(float(drawn[0][1][0, 1])) < 0.5
    return Markup(
        f'<figure class="chart"><figcaption><h3>{escape(chart.title)}'
        f"{f' <small>{escape(aside)}</small>' if aside else ''}</h3>{_legend(chart, drawn)}</figcaption>"
        f'<div class="frame" style="--h:{chart.height}px">'
        f'<div class="ys" aria-hidden="true">{y_labels(y_scale)}</div>'
        f'<div class="plot" data-chart="{data}">'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(f"{chart.title}. {told}")}">{"".join(shapes)}</svg>{_words(chart, x_scale, rising)}</div>'
        f'<div class="xs" aria-hidden="true">{x_labels(x_scale)}</div></div>'
        f'<p class="axis" aria-hidden="true">{escape(chart.x_label)}</p>'
        f"{f'<p class=note>{escape(chart.note)}</p>' if chart.note else ''}{_numbers(chart, drawn)}</figure>"
    )


def _y_scale(low: float, high: float, log: bool, zero: bool) -> Scale:
    if log:
        return Scale(low / 1.1, high * 1.1, log=True)
    if zero or (low > 0 and low < 0.3 * high):
        low = min(0.0, low)
    span = (high - low) or abs(high) or 1.0
    return Scale(low if low == 0 else low - 0.05 * span, high + 0.05 * span)


def _thinned(known: Points) -> Points:
    """Medians of equally many neighbours (the last of up to twice as many): noise that is drawn half as high in one
    part of a line as in another looks like a change."""
    each = math.ceil(len(known) / MOST_POINTS)
    if each <= 1:
        return known
    n = len(known) // each
    whole = (n - 1) * each
    parts = np.median(known[:whole].reshape(n - 1, each, 2), axis=1)
    return np.concatenate([parts, np.median(known[whole:], axis=0)[None]])


def _line(series: Series, points: Points, x: Scale, y: Scale) -> str:
    places = [(SIDE * x.share(a), SIDE * (1 - y.share(b))) for a, b in points.tolist()]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    faint = " faint" if series.faint else ""
    found = f'<path class="line{faint}" d="{path}" {stroke(series.style)}/>'
    if series.points or len(places) == 1:
        found += "".join(dot(a, b, series.style) for a, b in places)
    return found


def _grid(x: Scale, y: Scale) -> str:
    return "".join(horizontal(1 - y.share(value)) for value in y.ticks())


def _shade(chart: Chart, x: Scale) -> str:
    if chart.shaded is None:
        return ""
    low, high = (min(1.0, max(0.0, x.share(value))) * SIDE for value in chart.shaded[:2])
    return f'<rect class="shade" x="{low:.1f}" y="0" width="{high - low:.1f}" height="{SIDE}"/>'


def _marks(chart: Chart, x: Scale) -> str:
    inside = [mark for mark in chart.marks if 0 <= x.share(mark.x) <= 1]
    return "".join(
        f'<path class="mark{"" if mark.text else " quiet"}" d="M{SIDE * x.share(mark.x):.1f} 0V{SIDE}"/>'
        for mark in inside
    )


def _words(chart: Chart, x: Scale, rising: bool) -> str:
    """The marks' words above the plot; each on the side of its line that has room. What is shaded is named where a
    line that starts low, `rising`, or high leaves room."""
    found = []
    said = [mark for mark in chart.marks if mark.text and 0 <= x.share(mark.x) <= 1]
    for row, mark in enumerate(said):
        share = x.share(mark.x)
        side = "left" if share <= 0.5 else "right"
        place = share if share <= 0.5 else 1 - share
        found.append(
            f'<span class="word" aria-hidden="true" style="{side}:{100 * place:.2f}%;top:{1.2 * row:.1f}em">'
            f"{escape(mark.text)}</span>"
        )
    if chart.shaded is not None and 0 <= x.share(chart.shaded[0]) < 1:
        place = 100 * max(0.0, x.share(chart.shaded[0]))
        found.append(
            f'<span class="word{"" if rising else " low"}" aria-hidden="true" '
            f'style="left:{place:.2f}%{f";top:{1.2 * len(said):.1f}em" if rising else ""}">'
            f"{escape(chart.shaded[2])}</span>"
        )
    return "".join(found)


def _legend(chart: Chart, drawn: Sequence[tuple[Series, Points]]) -> str:
    if len(drawn) < 2:
        return ""
    items = "".join(f"<li>{key(s.style, s.points, s.faint)}{escape(s.name)}</li>" for s, _ in drawn)
    return f'<ul class="legend">{items}</ul>'


def _told(chart: Chart, drawn: Sequence[tuple[Series, Points]]) -> str:
    """The chart in words."""
    parts = []
    for series, known in drawn:
        ends = (0, -1, known[:, 1].argmin(), known[:, 1].argmax())
        first, last, low, high = ([number(one) for one in known[end].tolist()] for end in ends)
        parts.append(
            f"{series.name}: from {first[1]} at {chart.x_label} {first[0]} to {last[1]} at {chart.x_label} {last[0]}; "
            f"least {low[1]} at {low[0]}, most {high[1]} at {high[0]}."
        )
    parts += [f"Marked at {chart.x_label} {number(mark.x)}: {mark.text}." for mark in chart.marks if mark.text]
    if chart.shaded is not None:
        parts.append(f"Shaded up to {chart.x_label} {number(chart.shaded[1])}: {chart.shaded[2]}.")
    return " ".join(parts)


def _numbers(chart: Chart, drawn: Sequence[tuple[Series, Points]]) -> str:
    """The values as a table, at most `MOST_LISTED` a series, in `<details>`."""
    listed: dict[float, dict[str, float]] = {}
    for series, known in drawn:
        step = max(1, math.ceil(len(known) / MOST_LISTED))
        for x, y in [*known[::step].tolist(), known[-1].tolist()]:
            listed.setdefault(x, {})[series.name] = y
    names = [series.name for series, _ in drawn]
    body = [[number(x), *(number(row[n]) if n in row else "" for n in names)] for x, row in sorted(listed.items())]
    return details([chart.x_label, *names], body)


def _data(drawn: Sequence[Series], thinned: Sequence[Points], x_label: str, x: Scale) -> str:
    """For the pointer's reading: the ends of the axis of x and thinned values by series."""
    values = [
        {"n": series.name, "p": [[float(f"{a:.6g}"), float(f"{b:.4g}")] for a, b in points.tolist()]}
        for series, points in zip(drawn, thinned, strict=True)
        if not series.faint
    ]
    return json.dumps({"x": x_label, "ends": [x.low, x.high], "s": values})
