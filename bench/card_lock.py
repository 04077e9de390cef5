"""Several benches of one card at one time: they load and warm up beside each other, and measure one after the other."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from toolkit.errors import InputError

PATIENCE = 90.0  # seconds for which a bench waits for those that still load
_AGAIN = 0.1


class CardLock:
    """A lock on a file that the benches of a card are told of; None: nothing else is measured on it.

    Raises `InputError` for a file that can't be opened.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._file: IO[bytes] | None = path.open("ab") if path is not None else None
        except OSError as error:
            raise InputError(f"--lock {path}: {error.strerror}; wanted a file that can be written") from None

    def beside(self) -> None:
        """Begin to load, once no other bench measures."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def alone(self, patience: float = PATIENCE) -> bool:
        """Whether no other bench loads, warms up or measures from now until `free`. False where others have not loaded
        within `patience` seconds; none measures then."""
        if self._file is None:
            return True
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self._taken(self._file):
                return True
            time.sleep(_AGAIN)
        fcntl.flock(self._file, fcntl.LOCK_SH)  # waits for one that measures
        if self._taken(self._file):
            return True
        fcntl.flock(self._file, fcntl.LOCK_SH)
        return False

    def _taken(self, file: IO[bytes]) -> bool:
        """Whether it is ours alone now; else nothing of it is."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def free(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
