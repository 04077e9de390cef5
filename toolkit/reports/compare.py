"""Several runs side by side: what their recipes differ in, their curves, and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from toolkit.pages.axes import number
from toolkit.pages.bars import Interval, intervals
from toolkit.pages.lines import Chart, Series, line_chart
from toolkit.pages.page import table
from toolkit.recipe.dump import value_text
from toolkit.reports.flips import Flipped, flipped
from toolkit.reports.runview import RunView
from toolkit.reports.sections import GIB, grouped, interval_of, rate_text, size
from toolkit.words import duration

NOT_COMPARED = "export."
FLIPS_LISTED = 30  # each way


def named(views: Sequence[RunView]) -> list[str]:
    """A name for each run: its folder's, with more of the path where two are the same."""
    names = [view.name for view in views]
    if len(set(names)) == len(names):
        return names
    return [str(view.folder.path) if names.count(view.name) > 1 else view.name for view in views]


def results(names: Sequence[str], views: Sequence[RunView]) -> Markup:
    """A row a figure, a column a run."""
    rows: list[tuple[str, list[str]]] = [
        ("state", [view.state for view in views]),
        ("updates", [f"{view.updates:,}" for view in views]),
        ("last training loss", [_number(view.last_loss) for view in views]),
        ("lowest held-out loss", [_lowest(view) for view in views]),
        ("most right in training", [_most(view) for view in views]),
        ("adapter kept", [_kept(view) for view in views]),
        ("last held-out loss", [_last(view) for view in views]),
        ("right answers before", [_right(view, before=True) for view in views]),
        ("right answers after", [_right(view, before=False) for view in views]),
        ("real tokens/s", [f"{view.tokens_per_second:,.0f}" if view.tokens_per_second else "" for view in views]),
        ("peak memory", [size(view.peak_memory) if view.peak_memory else "" for view in views]),
        ("training time", [duration(view.summary["seconds"]) if view.summary.get("seconds") else "" for view in views]),
        ("device", [view.device for view in views]),
    ]
    return table(["", *names], [[label, *cells] for label, cells in rows if any(cells)])


def differences(names: Sequence[str], views: Sequence[RunView]) -> Markup:
    """Every recipe key whose value is not the same in all runs; an empty string where there is none."""
    flat = [dict(_flat(view.recipe.model_dump(mode="json"))) for view in views]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    body = []
    for key in keys:
        found = [one.get(key) for one in flat]
        if not key.startswith(NOT_COMPARED) and any(value != found[0] for value in found):
            body.append([key, *("not set" if value is None else value_text(value) for value in found)])
    return table(["key", *names], body) if body else Markup("")


def curves(names: Sequence[str], views: Sequence[RunView]) -> list[Markup]:
    """Losses, held-out losses, speed and memory of all runs, overlaid."""

    def series(pick: str, scale: float = 1.0) -> list[Series]:
        return [
            Series(name, view.log.updates, [value / scale for value in getattr(view.log, pick)], style)
            for style, (name, view) in enumerate(zip(names, views, strict=True))
        ]

    held_out = [
        Series(name, [e.update for e in found], [e.loss for e in found], style, points=True)
        for style, (name, found) in enumerate(zip(names, [view.log.evaluations for view in views], strict=True))
    ]
    drawn = [
        Chart("Training loss", series("losses"), unit="nats a trained token", log=True, height=280),
        Chart("Held-out loss", held_out, unit="nats a trained token", log=True, height=240),
        Chart("Learning rate", series("rates"), zero=True, height=130),
        Chart("Gradient norm", series("grad_norms"), log=True, height=160),
        Chart("Speed", series("speeds"), unit="real tokens/s", zero=True, height=160),
        Chart("Memory", series("memory", GIB), unit="GiB", zero=True, height=160),
    ]
    return [markup for chart in drawn if (markup := line_chart(chart))]


def accuracy(names: Sequence[str], views: Sequence[RunView]) -> Markup:
    """Right answers after training by kind, of all runs that have them."""
    groups: dict[str, list[Interval]] = {}
    for style, (name, view) in enumerate(zip(names, views, strict=True)):
        if view.after is None:
            continue
        for group, rows in grouped(view.after).items():
            groups.setdefault(group, []).append(interval_of(name, rows, style))
    return intervals("Right answers after training", groups, "Lines are Wilson's 95% intervals.")


def flips(names: Sequence[str], views: Sequence[RunView]) -> list[tuple[str, str, Flipped]]:
    """(first run, other run, chats that flipped) for every other run that evaluated the same chats as the first."""
    first = views[0].after
    found = []
    for name, view in zip(names[1:], views[1:], strict=True):
        if first is None or view.after is None:
            continue
        if (flip := flipped(first, view.after, (names[0], name), FLIPS_LISTED)) is not None:
            found.append((names[0], name, flip))
    return found


def _lowest(view: RunView) -> str:
    lowest = view.lowest_loss
    return f"{number(lowest[1])} at update {lowest[0]:,}" if lowest is not None else ""


def _most(view: RunView) -> str:
    best = view.best
    return f"{best.value:.0%} at update {best.update:,}" if best is not None and best.by_calls else ""


def _kept(view: RunView) -> str:
    update = view.summary.get("adapter_of_update")
    return f"of update {update:,}" if update is not None else ""


def _last(view: RunView) -> str:
    return number(view.log.evaluations[-1].loss) if view.log.evaluations else ""


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else number(value)


def _right(view: RunView, before: bool) -> str:
    found = view.before if before else view.after
    if found is None:
        return ""
    return rate_text(found.rates()["correct"])


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) as `--set` names them: `train.learning_rate`, `data.sources.0.size`."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for index, item in enumerate(value):
                yield from _flat(item, f"{key}.{index}.")
        elif isinstance(value, dict) and value:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value
