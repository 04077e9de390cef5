"""Progress bars: the one kind of our own, and none of the libraries'. rich's are imported where one is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 40  # columns, where `width` does not say otherwise


class Bar:
    """What is done, a bar, how much of `total` it is, a time and a text, on a terminal; nothing where there is none.

    `amount`: what is done is shown as a count or as a percentage. `time`: the one left, or the one since the start.
    `lasting`: the bar stays when it ends. To be entered, or started and stopped.
    """

    def __init__(
        self,
        console: Console | None,
        what: str,
        total: int | None,
        *,
        amount: Literal["count", "share"] = "count",
        time: Literal["left", "since"] = "left",
        lasting: bool = False,
    ) -> None:
        self.console, self.what, self.total = console, what, total
        self.amount, self.time, self.lasting = amount, time, lasting
        self.width = WIDTH
        self._progress: Progress | None = None
        self._task: Any = None

    @property
    def shown(self) -> bool:
        return self._progress is not None

    def start(self, completed: int = 0) -> None:
        if self.console is None or not self.console.is_terminal:
            return
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(self.width),
            progress.MofNCompleteColumn() if self.amount == "count" else progress.TaskProgressColumn(),
            progress.TimeRemainingColumn() if self.time == "left" else progress.TimeElapsedColumn(),
            *([progress.TextColumn("{task.fields[text]}", markup=False)] if self.lasting else []),
            console=self.console,
            transient=not self.lasting,
        )
        self._task = self._progress.add_task(self.what, total=self.total, completed=completed, text="")
        self._progress.start()

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Bar:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def advance(self, count: float = 1) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, count)

    def update(self, completed: float, text: str | None = None, total: int | None = None) -> None:
        """Say what is done; `text` and `total` stay as they are where they are not given."""
        if self._progress is not None:
            fields: Any = {} if text is None else {"text": text}
            self._progress.update(self._task, completed=completed, total=total, **fields)


@contextmanager
def without_bars() -> Iterator[None]:
    """Libraries show no progress bars of their own inside, whichever way they came by tqdm."""
    from tqdm import std

    shown = std.tqdm.__init__

    def hidden(bar: Any, *args: Any, **settings: Any) -> None:
        shown(bar, *args, **{**settings, "disable": True})

    std.tqdm.__init__ = hidden
    try:
        yield
    finally:
        std.tqdm.__init__ = shown
