"""Bars, shares, intervals and ranges as HTML: shapes in SVG with a text alternative, and their numbers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from toolkit.pages.axes import SIDE, Scale, dot, horizontal, key, number, stroke, y_labels
from toolkit.pages.page import details


def histogram(title: str, labels: Sequence[str], counts: Sequence[float], unit: str, x_label: str) -> Markup:
    """A histogram: upright bars with their counts as a table below. An empty string without counts."""
    if not counts or max(counts) <= 0:
        return Markup("")
    scale = Scale(0.0, max(counts))
    width = SIDE / len(counts)
    shapes = [
        f'<rect class="bar" x="{i * width + width * 0.06:.1f}" y="{SIDE * (1 - scale.share(count)):.1f}" '
        f'width="{width * 0.88:.1f}" height="{SIDE * scale.share(count):.1f}"/>'
        for i, count in enumerate(counts)
    ]
    grid = "".join(horizontal(1 - scale.share(value)) for value in scale.ticks())
    most = max(range(len(counts)), key=lambda i: counts[i])
    told = f"{title}: most, {number(counts[most])} {unit}, at {labels[most]}; from {labels[0]} to {labels[-1]}."
    shown = [(i, label) for i, label in enumerate(labels) if i % max(1, math.ceil(len(labels) / 4)) == 0]
    ticks = "".join(
        f'<span style="left:{100 * (i + 0.5) / len(labels):.2f}%">{escape(label)}</span>' for i, label in shown
    )
    body = [[label, number(count)] for label, count in zip(labels, counts, strict=True)]
    return Markup(
        f'<figure class="chart"><figcaption><h3>{escape(title)} <small>{escape(unit)}</small></h3></figcaption>'
        f'<div class="frame" style="--h:180px"><div class="ys" aria-hidden="true">{y_labels(scale)}</div>'
        f'<div class="plot"><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(told)}">{grid}{"".join(shapes)}</svg></div>'
        f'<div class="xs" aria-hidden="true">{ticks}</div></div>'
        f'<p class="axis" aria-hidden="true">{escape(x_label)}</p>'
        f"{details([x_label, unit], body)}</figure>"
    )


def shares(title: str, counts: dict[str, int], unit: str) -> Markup:
    """Counts by name as a table whose rows carry a bar."""
    total = sum(counts.values())
    if not total:
        return Markup("")
    most = max(counts.values())
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{count:,}</td><td>{count / total:.1%}</td>'
        f'<td class="meter" aria-hidden="true"><span style="width:{100 * count / most:.1f}%"></span></td></tr>'
        for name, count in counts.items()
    )
    return Markup(
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3></figcaption><table class="shares"><thead><tr>'
        f'<th scope="col">{escape(title.split()[-1])}</th><th scope="col">{escape(unit)}</th><th scope="col">share</th>'
        f'<td aria-hidden="true"></td></tr></thead><tbody>{rows}</tbody></table></figure>'
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """A share of 0 to 1 with its interval, as one line of an interval chart."""

    name: str
    share: float
    low: float
    high: float
    told: str
    style: int = 0


def intervals(title: str, groups: dict[str, list[Interval]], note: str = "") -> Markup:
    """Shares with their 95% intervals on one axis from 0 to 100%, grouped by name."""
    if not groups:
        return Markup("")
    names = list(dict.fromkeys((i.name, i.style) for group in groups.values() for i in group))
    legend = "".join(f"<li>{key(style, points=True)}{escape(name)}</li>" for name, style in names)
    blocks_ = []
    for group, found in groups.items():
        height = 20 * len(found)
        shapes = "".join(_horizontal_interval(interval, row, len(found)) for row, interval in enumerate(found))
        told = "; ".join(f"{i.name} {i.told}" for i in found)
        words = "".join(f"<li><span>{escape(i.name)}</span> <b>{escape(i.told)}</b></li>" for i in found)
        lines = "".join(
            f'<path class="grid" d="M{x} 0V{SIDE}"/>' for x in (0, SIDE // 4, SIDE // 2, 3 * SIDE // 4, SIDE)
        )
        blocks_.append(
            f'<div class="interval"><div class="what"><b>{escape(group)}</b><ul>{words}</ul></div>'
            f'<div class="strip" style="--h:{height}px"><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" '
            f'role="img" aria-label="{escape(f"{group}: {told}")}">{lines}{shapes}</svg></div></div>'
        )
    axis = "".join(f'<span style="left:{share}%">{share}%</span>' for share in (0, 25, 50, 75, 100))
    return Markup(
        f'<figure class="chart intervals"><figcaption><h3>{escape(title)}</h3><ul class="legend">{legend}</ul>'
        f"</figcaption>{''.join(blocks_)}"
        f'<div class="interval" aria-hidden="true"><div class="what"></div><div class="xs">{axis}</div></div>'
        f"{f'<p class=note>{escape(note)}</p>' if note else ''}</figure>"
    )


def _horizontal_interval(interval: Interval, row: int, rows: int) -> str:
    y = SIDE * (row + 0.5) / rows
    path = f"M{SIDE * interval.low:.1f} {y:.1f}H{SIDE * interval.high:.1f}"
    return f'<path class="range" d="{path}" {stroke(interval.style)}/>' + dot(SIDE * interval.share, y, interval.style)


WIDTH, LABEL, ROW, BAR = 900, 210, 26, 16
PLOT = WIDTH - LABEL - 110  # the rest is for the figure at a bar's end


@dataclass(frozen=True, slots=True)
class Row:
    """A row of horizontal bars: its name and figure, and (value, colour, text alternative) of each part, side by side.

    With `spread`, (least, greatest), a range is drawn, and its one part is a point upon it.
    """

    name: str
    figure: str
    parts: Sequence[tuple[float, str, str]]
    spread: tuple[float, float] | None = None


def horizontal_bars(label: str, rows: Sequence[Row], legend: Sequence[tuple[str, str]] = ()) -> Markup:
    """Bars or ranges from 0, one a row, on one axis; `legend` has (colour, name) of parts."""
    ends = [row.spread[1] if row.spread else sum(value for value, _, _ in row.parts) for row in rows]
    scale = Scale(0.0, max(ends, default=0.0))
    height, top = len(rows) * ROW, 44 if legend else 6
    ticks = [(value, f"{LABEL + PLOT * scale.share(value):.1f}") for value in scale.ticks()]
    grid = "".join(
        f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height}"/><text class="soft" x="{x}" y="{height + 16}" '
        f'text-anchor="middle">{f"{value:,.0f}" if value >= 100 else f"{value:g}"}</text>'
        for value, x in ticks
    )
    keys = "".join(
        f'<rect x="{LABEL + 170 * (i % 4)}" y="{4 + 18 * (i // 4)}" width="11" height="11" fill="{colour}"/>'
        f'<text x="{LABEL + 170 * (i % 4) + 16}" y="{14 + 18 * (i // 4)}">{escape(name)}</text>'
        for i, (colour, name) in enumerate(legend)
    )
    drawn = "".join(_row(row, i, scale) for i, row in enumerate(rows))
    return Markup(
        f'<div class="scroll" tabindex="0"><svg viewBox="0 0 {WIDTH} {top + height + 24}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(label)}">{keys}<g transform="translate(0 {top})">{grid}{drawn}</g></svg></div>'
    )


def _row(row: Row, place: int, scale: Scale) -> str:
    middle, end, shapes = place * ROW + ROW / 2, float(LABEL), ""
    if row.spread is not None:
        ((value, colour, told),) = row.parts
        low, point, end = (LABEL + PLOT * scale.share(one) for one in (row.spread[0], value, row.spread[1]))
        shapes = (
            f'<line class="range" x1="{low:.1f}" x2="{end:.1f}" y1="{middle}" y2="{middle}"/>'
            f'<circle cx="{point:.1f}" cy="{middle}" r="5" fill="{colour}"><title>{escape(told)}</title></circle>'
        )
        end += 4
    else:
        for value, colour, told in row.parts:
            width = PLOT * scale.share(value)
            shapes += (
                f'<rect x="{end:.1f}" y="{middle - BAR / 2}" width="{width:.1f}" height="{BAR}" fill="{colour}">'
                f"<title>{escape(told)}</title></rect>"
            )
            end += width
    return (
        f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>{shapes}'
        f'<text class="soft" x="{end + 6:.1f}" y="{middle + 4}">{escape(row.figure)}</text>'
    )
