"""The command line, called in this process."""

from __future__ import annotations

import sys

import pytest

from toolkit.commands import main as cli


def toolkit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["toolkit", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err
