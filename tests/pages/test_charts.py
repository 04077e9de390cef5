"""Charts: what is drawn of many values and of none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from toolkit.pages import lines
from toolkit.pages.bars import Interval, histogram, intervals
from toolkit.pages.lines import Chart, Mark, Series, line_chart


def test_a_log_is_thinned_but_keeps_its_ends() -> None:
    xs = list(range(1, 5001))
    chart = line_chart(Chart("c", [Series("s", xs, [1 / x for x in xs])], log=True, marks=[Mark(7, "here")]))
    assert "logarithmic" in chart and len(chart) < 60_000
    assert "from 1 at update 1 to 0.0002 at update 5,000" in chart
    assert line_chart(Chart("c", [Series("s", [1.0], [float("nan")])])) == ""
    assert "<svg" in line_chart(Chart("one point", [Series("s", [3.0], [2.0])]))
    assert intervals("none", {}) == "" and histogram("b", ["1"], [0], "u", "x") == ""
    assert "no share" in intervals("i", {"k": [Interval("a", 0.0, 0.0, 1.0, "no share")]})


@pytest.mark.parametrize("n", [600, 601, 952, 1199, 1875, 5001])
def test_noise_is_drawn_alike_along_a_line(n: int) -> None:
    """952 rows in 600 groups were pairs at first and single ones later, as if the loss became noisier."""
    points = lines._thinned(np.array([(float(i), float(i % 7)) for i in range(n)]))
    assert len(points) <= lines.MOST_POINTS
    steps = {b - a for (a, _), (b, _) in pairwise(points[:-1])}
    assert len(steps) == 1
    assert points[0][0] < n / 300 and points[-1][0] > n - 1 - n / 300
