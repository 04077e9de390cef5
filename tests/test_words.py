"""Counts, and commands as they can be typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from toolkit.words import counted, duration, money, short, typed


def test_counts() -> None:
    assert [counted(n, "chat") for n in (0, 1, 2, 15_694)] == ["0 chats", "1 chat", "2 chats", "15,694 chats"]
    assert (counted(1, "reply", "replies"), counted(3, "reply", "replies")) == ("1 reply", "3 replies")


def test_money() -> None:
    said = ["$0.00", "under $0.01", "under $0.01", "$0.01", "$1.88", "$120.00"]
    assert [money(dollars) for dollars in (0, 0.0001, 0.0099, 0.01, 1.876, 120)] == said


def test_durations() -> None:
    said = ["8.2 s", "41 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "2 h 02 min"]
    assert [duration(seconds) for seconds in (8.24, 41.3, 59.96, 61, 3600, 7_350)] == said


def test_short_texts_are_one_line() -> None:
    assert [short(text, 9) for text in ("a\n b", "a" * 9, "a" * 10)] == ["a b", "a" * 9, "a" * 6 + "..."]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an environment in it, which is the working folder."""
    folder = tmp_path / "check out" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("toolkit", "python"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def start(monkeypatch: pytest.MonkeyPatch, program: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(program), "run"])


def test_a_program_that_is_not_on_the_path(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    start(monkeypatch, ".venv/bin/toolkit")
    assert typed("run", Path("my recipe.toml")) == ".venv/bin/toolkit run 'my recipe.toml'"
    start(monkeypatch, place / "toolkit")
    assert typed("doctor") == ".venv/bin/toolkit doctor"
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    assert typed("doctor") == f"'{place}/toolkit' doctor"


def test_a_program_on_the_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(["/nowhere", str(place)]))
    start(monkeypatch, place / "toolkit")
    assert typed() == "toolkit"
    start(monkeypatch, place / "toolkit")
    monkeypatch.setenv("PATH", "/nowhere")
    assert typed() == ".venv/bin/toolkit"


def test_as_a_module_and_from_something_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, "/somewhere/toolkit/__main__.py")
    assert typed("runs") == ".venv/bin/python -m toolkit runs"
    monkeypatch.setenv("PATH", str(place))
    assert typed("runs") == "python -m toolkit runs"
    start(monkeypatch, "/usr/bin/pytest")
    assert typed("runs") == "toolkit runs"
