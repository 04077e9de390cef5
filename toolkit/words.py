"""Words that go by a number, and commands as the user can type them here."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from itertools import zip_longest
from pathlib import Path

NAME = "toolkit"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """`1 chat`, `2 chats`, `15,694 chats`; `nouns` where the plural is not the noun with an s, as of "row is"."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def money(dollars: float) -> str:
    """`$1.88`, and `under $0.01` for what is less and not free."""
    return "under $0.01" if 0 < dollars < 0.01 else f"${dollars:.2f}"


def duration(seconds: float) -> str:
    """`8.2 s`, `41 s`, `12 min 05 s` or `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if (whole := round(seconds)) < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def short(text: str, most: int = 160) -> str:
    """A text on one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def typed(*words: str | os.PathLike[str]) -> str:
    """The command `toolkit WORDS` as it can be typed where this process was started, as `.venv/bin/toolkit run x.toml`.

    It is the program of this process: by its name alone where that is found on PATH, else by its path, from the
    working folder where it is below that.
    """
    return f"{program()} {shlex.join([os.fspath(word) for word in words])}".rstrip()


def next_steps(*commands: str) -> list[str]:
    """Lines that name the commands to go on with, one each, under the one word `next`."""
    return [f"{head:<10} {command}" for head, command in zip_longest(("next",), commands, fillvalue="")]


def program() -> str:
    """How this program is started here: `toolkit`, a path to it, or `python -m toolkit`."""
    started = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path(NAME)
    if started.name == "__main__.py" and started.parent.name == NAME:
        return f"{_reached(Path(sys.executable), shutil.which('python'))} -m {NAME}"
    if started.name != NAME:  # something else that uses the package
        return NAME
    return _reached(started, shutil.which(NAME))


def _reached(file: Path, known: str | None) -> str:
    """`file` by its name where PATH leads to it (`known`), else by its path."""
    path = _absolute(file)
    if known is not None and _absolute(known) == path:
        return Path(known).name
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Not resolved: an environment's python is a link to another's."""
    return Path(os.path.abspath(path))  # noqa: PTH100
