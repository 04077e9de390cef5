"""Progress bars of our own, and none of libraries'."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from toolkit.progress import Bar, without_bars


def shown(terminal: bool, **options: Any) -> str:
    """What is seen last of a bar over 8 things, 3 of which are done, without the bar itself."""
    told = io.StringIO()
    console = Console(file=told, force_terminal=terminal, width=100, color_system=None)
    with Bar(console, "things [b]", 8, **options) as bar:
        bar.advance(2)
        bar.update(3, "and more" if options.get("lasting") else None)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[━╸╺]", "", told.getvalue()).rstrip().splitlines()
    return " ".join(lines[-1].split()) if lines else ""


@pytest.mark.parametrize(
    "options, seen",
    [
        ({}, r"things \[b\] 3/8 [-:\d]+"),
        ({"amount": "share"}, r"things \[b\] 38% [-:\d]+"),
        ({"time": "since"}, r"things \[b\] 3/8 0:00:\d\d"),
        ({"lasting": True}, r"things \[b\] 3/8 [-:\d]+ and more"),
    ],
)
def test_a_bar_is_shown_on_a_terminal_only(options: dict[str, Any], seen: str) -> None:
    assert re.fullmatch(seen, shown(True, **options))
    assert shown(False, **options) == ""


def test_library_bars_are_hidden_inside_only() -> None:
    from tqdm import tqdm
    from tqdm.auto import tqdm as another

    told = io.StringIO()
    with without_bars():
        assert list(tqdm(range(3), file=told)) == list(another(range(3), file=told)) == [0, 1, 2]
    assert told.getvalue() == ""
    assert list(tqdm(range(3), file=told)) == [0, 1, 2] and "3/3" in told.getvalue()
