"""All that the package writes to the terminal goes through here.

Chats, names, folders, templates and what models say come from outside. A terminal takes some characters for orders:
to clear the screen, to fill the clipboard, to show a link under another address, to write from right to left. They are
shown as JSON writes them (`\\u001b`), never passed on. Square brackets are text: nothing is read as rich's markup.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from toolkit.errors import unbroken

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

# Control characters but tab and line feed, marks that turn the direction of writing, separators that break lines,
# halves of surrogate pairs, invisible annotations and tags.
_ORDERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """`text` with every character that a terminal takes for an order written as JSON writes it.

    Looks at each character alone, so a stream may be cleaned piece by piece. JSON stays the same JSON.
    """
    return text if text.isascii() and text.isprintable() else _ORDERS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def one_line(value: object) -> str:
    """A text that may hold line feeds of others', which could look like lines of ours, as one line."""
    return clean(unbroken(str(value)))


class _State:
    muted = False
    stdout: IO[str] | None = None  # as it was


def mute(yes: bool = True) -> None:
    """Let this process say nothing, and its libraries no more than errors, as a rank does that is not the first."""
    if yes and not _State.muted:
        _State.stdout, sys.stdout = sys.stdout, Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    elif not yes and _State.stdout is not None:
        sys.stdout, _State.stdout = _State.stdout, None
    _State.muted = yes
    logging.disable(logging.WARNING if yes else logging.NOTSET)
    if yes:
        warnings.simplefilter("ignore")


def say(*values: object, end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """`print` for everything that is not a console's, cleaned. `file`: standard output where none is given."""
    if _State.muted:
        return
    _write(sys.stdout if file is None else file, clean(" ".join(map(str, values))) + end, flush)


def warn(*values: object) -> None:
    """`say` on standard error, at once."""
    say(*values, file=sys.stderr, flush=True)


def _write(stream: IO[str], text: str, flush: bool) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a terminal that can't show all of Unicode
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    if flush:
        stream.flush()


def new_console(*, stderr: bool = False, soft_wrap: bool = False, **options: Any) -> Console:
    """The one kind of console that there is: no markup, no emoji codes, no highlighting, clean."""
    plain = {"markup": False, "emoji": False, "highlight": False}
    options.setdefault("quiet", _State.muted)
    return cast("Console", _clean_console()(stderr=stderr, soft_wrap=soft_wrap, **plain, **options))


@cache
def _clean_console() -> type[Any]:
    from rich.console import Console  # `--help` and what prints plain lines do without it
    from rich.segment import Segment

    class Clean(Console):
        """A console whose texts are cleaned: strings as they come in, anything else as it goes out."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(clean(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(clean(segment.text), segment.style)

    return Clean


def guard() -> None:
    """Make standard streams take every character, and clean what libraries log and warn of."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.getLogRecordFactory() is not _CleanRecord:
        logging.setLogRecordFactory(_CleanRecord)
        warnings.formatwarning = _format_warning


class _CleanRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return clean(super().getMessage())


_plain_warning = warnings.formatwarning


def _format_warning(*args: Any, **kwargs: Any) -> str:
    return clean(_plain_warning(*args, **kwargs))
