"""`toolkit report`: a run, or several compared, as one web page that needs nothing but itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import InputError, RunError
from toolkit.files import write_text
from toolkit.pages.page import render
from toolkit.reports import compare, extras, sections, verified
from toolkit.reports.runview import RunView

MARKS = {"stop": "✕", "warning": "!", "note": "i", "good": "✓"}


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was written, and the runs on it."""

    path: Path
    views: list[RunView]


def write_report(runs: Sequence[Path], out: Path | None = None, bench: Sequence[Path] = ()) -> Page:
    """Write the page of one run, or the comparison of several.

    By default it is report.html in the run's folder, or compare-A-B.html beside the first run. Raises `RunError` for a
    folder that is no run, has no metrics yet, or holds a broken file.
    """
    views = [RunView.load(path) for path in runs]
    if len(views) == 1:
        target = out or views[0].folder.report
        with _readable(views):
            text = run_page(views[0], list(bench))
    else:
        names = "-".join(view.name for view in views)
        target = out or views[0].folder.path.resolve().parent / f"compare-{names[:100]}.html"
        with _readable(views):
            text = compare_page(views)
    try:
        write_text(target, text)
    except OSError as error:
        raise InputError(f"{target}: can't be written: {error.strerror}; name another with --out") from error
    return Page(target, views)


@contextlib.contextmanager
def _readable(views: Sequence[RunView]) -> Iterator[None]:
    """Files that were written before they had checksums can hold anything: what no page can be made of is said."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        folders = [view.folder for view in views if not view.sealed]
        if isinstance(error, InputError) or not folders:
            raise
        named = ", ".join(str(one) for folder in folders for one in (folder.environment, folder.summary))
        raise RunError(f"one of {named} is not as a run writes it ({error!r})") from error


def run_page(view: RunView, bench: list[Path]) -> str:
    """The page of one run."""
    return render(
        "run.html",
        "toolkit report",
        scripted=True,
        marks=MARKS,
        title=view.name,
        view=view,
        sentence=sections.sentence(view),
        tiles=sections.tiles(view),
        verdicts=view.verdicts,
        curves=sections.curves(view),
        accuracy=sections.accuracy(view),
        data_facts=sections.data_facts(view),
        data_charts=sections.data_charts(view),
        samples=sections.mask_samples(view),
        extras=[
            *extras.evaluations(view.folder.path),
            *extras.exports(view.folder.path),
            *verified.sections(view.folder),
            *extras.benches(view.folder.path, bench),
        ],
        environment=sections.environment_rows(view),
        commands=sections.again(view),
    )


def compare_page(views: Sequence[RunView]) -> str:
    """The page that compares runs."""
    named = compare.named(views)
    return render(
        "compare.html",
        "toolkit report",
        scripted=True,
        marks=MARKS,
        title=" and ".join(named) if len(named) == 2 else f"{len(named)} runs",
        views=list(zip(named, views, strict=True)),
        sentences=[sections.sentence(view) for view in views],
        results=compare.results(named, views),
        differences=compare.differences(named, views),
        curves=compare.curves(named, views),
        accuracy=compare.accuracy(named, views),
        flipped=compare.flips(named, views),
    )
