"""How far decoding has come."""

from __future__ import annotations

import time

from toolkit.progress import Bar
from toolkit.terminal import new_console

SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """A progress bar with tokens/s, or a line now and then where there is no terminal."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total = total
        self.shown = shown and total > 0
        self.console = new_console()
        self.done = self.tokens = 0
        self.started = self.printed = time.monotonic()
        self.bar = Bar(self.console if self.shown else None, "decoding", total, lasting=True)

    def __enter__(self) -> Meter:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    @property
    def rate(self) -> str:
        return f"{self.tokens / max(1e-9, time.monotonic() - self.started):,.0f} tokens/s"

    def under_way(self, chats: float) -> None:
        """Beside those that are done, parts of chats that are worth so many whole ones."""
        self.bar.update(self.done + chats)

    def one_done(self, tokens: int) -> None:
        self.done += 1
        self.tokens += tokens
        self.bar.update(self.done, self.rate)
        if not self.bar.shown and self.shown and time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            self.say(f"decoded {self.done} of {self.total}, {self.rate}")

    def say(self, line: str) -> None:
        if self.shown:
            self.console.print(line, highlight=False)
