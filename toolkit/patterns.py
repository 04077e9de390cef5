"""Regular expressions that come from outside: searched in a time that no pattern can stretch.

RE2 searches in time linear in the text. What it has no syntax for (look-around, back references) goes to `regex`, which
can be stopped: such a search has a quarter of a second, and after a few that took it no more of them are tried.
"""

from __future__ import annotations

from functools import lru_cache
from time import thread_time
from typing import Any

from toolkit.terminal import one_line

LONGEST = 2_000  # characters of a pattern
LONGEST_FALLBACK_TEXT = 20_000  # characters that a pattern outside RE2 is searched in
SECONDS = 0.25
MOST_TIMEOUTS = 8
_TRIES = 20  # of a search that was not stopped by its own work

_timeouts = 0


class PatternError(ValueError):
    """A pattern that is none, or that can't be searched within bounds."""


class Pattern:
    """One pattern, compiled. Raises `PatternError` when it is too long or no regular expression."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > LONGEST:
            raise PatternError(f"a pattern of {len(pattern):,} characters; at most {LONGEST:,} are read")
        self.text = _encodable(pattern)
        self._re2 = _linear(self.text)
        self._regex = None if self._re2 else _bounded(self.text)
        self._slow = False

    def found_in(self, text: str) -> bool:
        """Whether it matches anywhere in `text`. Raises `PatternError` when the search would take too long."""
        text = _encodable(text)
        if self._re2 is not None:
            return self._re2.search(text) is not None
        return self._stopped_in_time(self._regex, text)

    def _stopped_in_time(self, regex: Any, text: str) -> bool:
        global _timeouts
        if len(text) > LONGEST_FALLBACK_TEXT or self._slow or _timeouts >= MOST_TIMEOUTS:
            raise PatternError(f"the pattern {_short(self.text)} takes too long to search")
        for _ in range(_TRIES):
            began = thread_time()
            try:
                return regex.search(text, timeout=SECONDS) is not None
            except TimeoutError:
                if thread_time() - began > SECONDS / 2:  # else it was the machine that had no time for it
                    break
        self._slow = True
        _timeouts += 1
        raise PatternError(f"the pattern {_short(self.text)} takes too long to search")


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Pattern:
    """`Pattern(pattern)`, kept."""
    return Pattern(pattern)


def _linear(pattern: str) -> Any:
    import re2  # as `regex` below: few commands meet a pattern from outside

    options = re2.Options()
    options.log_errors = False  # else RE2 itself writes to the terminal
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _bounded(pattern: str) -> Any:
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
        raise PatternError(f"{_short(pattern)} is no regular expression: {error}") from None


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which UTF-8 has no bytes for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _short(text: str) -> str:
    return f"'{one_line(text if len(text) <= 60 else text[:57] + '...')}'"
