"""Axes, numbers and marks that every chart draws with: colours are the palette's, `--p0` on, by CSS."""

from __future__ import annotations

import math

SIDE = 1000  # units of a stretched SVG, both ways
DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 4")
COLOURS = 4  # of the palette, --p0 to --p3


class Scale:
    """From values to shares of an axis, 0 to 1, with round numbers for its grid. Logarithmic from `low` > 0."""

    def __init__(self, low: float, high: float, *, log: bool = False, count: int = 5) -> None:
        if not math.isfinite(low) or not math.isfinite(high):
            low, high = 0.0, 1.0
        if high <= low:
            around = abs(low) / 2 or 1.0
            low, high = (low, low + around) if low == 0 else (low - around, low + around)
        self.low, self.high, self.log, self.count = low, high, log and low > 0, count

    def share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def step(self) -> float:
        """The distance of the grid's lines: 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / self.count
        power = 10.0 ** math.floor(math.log10(rough))
        return next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))

    def ticks(self) -> list[float]:
        """Round values from low to high."""
        if not self.log:
            first = math.ceil(self.low / self.step - 1e-9)
            last = math.floor(self.high / self.step + 1e-9)
            return [round(i * self.step, 12) for i in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for leading in ((1, 2, 5), (1, 3), (1,)):
            found = [k * 10.0**decade for decade in decades for k in leading if self._inside(k * 10.0**decade)]
            if len(found) <= self.count + 2:
                break
        if len(found) < 2:
            return Scale(self.low, self.high, count=self.count).ticks()
        return found

    def _inside(self, value: float) -> bool:
        return self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)


def number(value: float) -> str:
    """Four significant digits at most, as people write numbers."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def tick(value: float) -> str:
    """`number`, shorter from ten thousand on: 60k."""
    return f"{number(value / 1000)}k" if 1e4 <= abs(value) < 1e6 else number(value)


def y_labels(scale: Scale) -> str:
    return "".join(
        f'<span style="top:{100 * (1 - scale.share(value)):.2f}%">{tick(value)}</span>' for value in scale.ticks()
    )


def x_labels(scale: Scale) -> str:
    return "".join(
        f'<span style="left:{100 * scale.share(value):.2f}%">{tick(value)}</span>' for value in scale.ticks()
    )


def stroke(style: int) -> str:
    """A style's colour and dash, as attributes."""
    dash = DASHES[style % len(DASHES)]
    return f'stroke="var(--p{style % COLOURS})"' + (f' stroke-dasharray="{dash}"' if dash else "")


def key(style: int, points: bool, faint: bool = False) -> str:
    """A sample of a line for the legend."""
    line = f'<path class="line{" faint" if faint else ""}" d="M2 6H30" {stroke(style)}/>'
    return f'<svg class="key" viewBox="0 0 32 12" aria-hidden="true">{line}{dot(16, 6, style) if points else ""}</svg>'


def dot(x: float, y: float, style: int) -> str:
    """A point that keeps its shape however the SVG is stretched: a stroke without length, round or square."""
    cap = "round" if style % 2 == 0 else "square"
    colour = f"var(--p{style % COLOURS})"
    return f'<path class="dot" d="M{x:.1f} {y:.1f}h.01" stroke="{colour}" stroke-linecap="{cap}"/>'


def horizontal(share: float) -> str:
    """A line of the grid."""
    return f'<path class="grid" d="M0 {SIDE * share:.1f}H{SIDE}"/>'
