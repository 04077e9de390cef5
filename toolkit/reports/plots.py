"""What every page of the toolkit draws with: colours for light and dark, round numbers for axes, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

# Custom properties; a page's style begins with these. Text on paper has a contrast of at least 4.5, lines of 3.
PALETTE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f6f8fa; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --bar: #3b6fb6;
  --p0: #2f6db5; --p1: #b8570b; --p2: #2f7d4f; --p3: #8a4b9b; --p4: #76818d; --bad: #b3261e; --warn: #8a5a00;
  --good: #1f7a45; --trained: #d8f0dc; --trained-ink: #0b4a22; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15191e; --card: #1c2229; --ink: #e6eaef; --soft: #9aa5b1; --line: #38424d; --bar: #79a8e6;
  --p0: #79a8e6; --p1: #eaa35a; --p2: #7cc596; --p3: #c99ad3; --p4: #8a96a3; --bad: #f2857c; --warn: #e3b55c;
  --good: #7cc596; --trained: #17402a; --trained-ink: #b4ecc4; } }
"""


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


def table(head: Sequence[str], body: Sequence[Sequence[str]], words: bool = False) -> str:
    """An HTML table that scrolls sideways where it does not fit. Cells are text; `words` has the class of that name."""

    def row(cells: Sequence[str], tag: str, scope: str = "") -> str:
        return "<tr>" + "".join(f"<{tag}{scope}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    named = ' class="words"' if words else ""
    head_row = row(head, "th", ' scope="col"')
    return (
        f'<div class="scroll" tabindex="0"><table{named}><thead>{head_row}</thead><tbody>'
        + "".join(row(cells, "td") for cells in body)
        + "</tbody></table></div>"
    )
