"""A verification's time: what is left of its bound, how far a step is, and where the time went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from toolkit.export_report import Step
from toolkit.progress import Bar

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[], None]


class Clock:
    """Bounds a verification to about `seconds`, shows each step as a bar on a terminal, and keeps the times."""

    def __init__(self, seconds: float, console: Console | None) -> None:
        self.seconds = seconds
        self.console = console
        self.steps: list[Step] = []
        self._started = time.perf_counter()

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._started

    @property
    def left(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self.seconds - self.spent)

    def share(self, part: float) -> Callable[[], bool]:
        """For a step that may take this part of what is left now: whether its next piece still fits.

        To be asked after each piece; the next one is taken to be as long as the longest until then.
        """
        end = self.spent + part * self.left
        last, longest = self.spent, 0.0

        def fits() -> bool:
            nonlocal last, longest
            now = self.spent
            longest, last = max(longest, now - last), now
            return now + longest < end

        return fits

    @contextlib.contextmanager
    def step(self, name: str, file: str | None = None, of: int = 0) -> Iterator[Advance]:
        """A step of `of` pieces; what it yields is called after each of them."""
        step = Step(name, file, 0.0, 0, of)
        started = time.perf_counter()
        what = f"verifying  {file}: {name}" if file else f"verifying  {name}"
        try:
            with Bar(self.console, what, of or None, time="since") as bar:

                def advance() -> None:
                    step.done += 1
                    bar.advance()

                yield advance
        finally:
            step.seconds = round(time.perf_counter() - started, 1)
            self.steps.append(step)
