"""How far decoding has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from toolkit.terminal import new_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """A progress bar with tokens/s, or a line now and then where there is no terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total = total
        self.shown = shown and total > 0
        self.console = new_console()
        self.done = self.tokens = 0
        self.started = self.printed = time.monotonic()
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Meter:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.shown and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("decoding", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=self.console,
            )
            self.task = self.progress.add_task("", total=self.total, text="")
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    @property
    def rate(self) -> str:
        return f"{self.tokens / max(1e-9, time.monotonic() - self.started):,.0f} tokens/s"

    def under_way(self, chats: float) -> None:
        """Beside those that are done, parts of chats that are worth so many whole ones."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done + chats)

    def one_done(self, tokens: int) -> None:
        self.done += 1
        self.tokens += tokens
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done, text=self.rate)
        elif self.shown and time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            self.say(f"decoded {self.done} of {self.total}, {self.rate}")

    def say(self, line: str) -> None:
        if self.shown:
            self.console.print(line, highlight=False)
