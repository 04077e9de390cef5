"""Nothing from outside gives orders to the terminal, and everything that is written goes the one way."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

import bench
import toolkit
from toolkit import terminal
from toolkit.terminal import clean, guard, new_console, one_line, say, warn

ORDERS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "link": "\x1b]8;;http://example.invalid\x1b\\bank\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "8-bit": "\x9b2J\x9d52;c;ZXZpbA==\x9c",
    "overwriting": "good\r\x08bad",
    "bidi": "file\u202egnp.exe\u2066x\u2069",
    "surrogate": "a\udc9bb",
    "tags": "a\U000e0041b",
}
SHOWN = [file for root in (toolkit, bench) for file in Path(str(root.__file__)).parent.rglob("*.py")]


def harmless(text: str) -> bool:
    return all(char in "\n\t" or not (ord(char) < 32 or 126 < ord(char) < 160) for char in text) and not any(
        char in text for char in "\u202e\u2066\u2069\udc9b\U000e0041"
    )


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_orders_are_shown_and_not_given(order: str) -> None:
    assert not harmless(order) and harmless(clean(order))
    out = io.StringIO()
    console = new_console(file=out, width=200)
    table = Table(title=order)
    table.add_column(order)
    table.add_row(order, Text(order))
    for told in (order, Text(order), table):
        console.print(told)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(order)
    say(order, file=out)
    assert harmless(out.getvalue())


def test_what_is_written_is_what_json_writes() -> None:
    assert clean("\x1b[2J\x07é雨\t\n") == "\\u001b[2J\\u0007é雨\t\n"
    value = {"a": "\x9b\u202e\U000e0041é"}
    assert json.loads(clean(json.dumps(value, ensure_ascii=False))) == value
    assert one_line("x\nerror: y\x1b") == "x\\nerror: y\\u001b"


@given(st.text(), st.integers(0, 20))
def test_a_stream_is_cleaned_piece_by_piece(text: str, cut: int) -> None:
    assert clean(text[:cut]) + clean(text[cut:]) == clean(text) == clean(clean(text))


BRACKETS = ("pip install -e '.[flash4]'", "[red]a[/red]", "a[/]", "[link=http://x]y", ":smile:", "[[")


@pytest.mark.parametrize("text", BRACKETS)
def test_brackets_are_text(text: str) -> None:
    out = io.StringIO()
    console = new_console(file=out, width=200, force_terminal=True, color_system=None)
    table = Table(show_header=False, box=None)
    table.add_row(text)
    console.print(text)
    console.print(table)
    assert [line.strip() for line in out.getvalue().splitlines()] == [text, text]


def test_a_stream_that_knows_little_shows_what_it_can() -> None:
    for encoding in ("ascii", "latin-1"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
        say("a雨\udcff", file=stream)
        assert raw.getvalue() == b"a\\u96e8\\udcff\n"


def test_libraries_logs_and_warnings_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    guard()
    record = logging.getLogRecordFactory()("x", 30, "f", 1, "a %s", ("\x1b[2J",), None)
    assert record.getMessage() == "a \\u001b[2J"
    assert "\\u001b[2J" in warnings.formatwarning("\x1b[2J", UserWarning, "f", 1)
    warn("\x1b[2J")
    assert capsys.readouterr().err == "\\u001b[2J\n"


def test_errors_and_arguments_are_cleaned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.command import toolkit as call

    for words in (("run", "\x1b[2Jgone.toml"), ("plan", "a.toml", "\x1b[2J"), ("\x1b[2J",), ("runs", "\x1b[2J")):
        _, out, err = call(capsys, monkeypatch, *words)
        assert harmless(out + err) and "1b[2J" in out + err


def refused(tree: ast.AST) -> list[str]:
    """What writes past `toolkit.terminal`, or has rich read markup."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "rich.markup":
            found.append(f"{node.lineno}: rich.markup")
        if isinstance(node, ast.ImportFrom) and node.module == "rich":
            found += [f"{node.lineno}: rich.{one.name}" for one in node.names if one.name in ("print", "get_console")]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called == "print" or called.split(".")[-1] in ("Console", "from_markup", "secho"):
            found.append(f"{node.lineno}: {called}")
        if called in ("typer.echo", "sys.stdout.write", "sys.stderr.write", "traceback.print_exc"):
            found.append(f"{node.lineno}: {called}")
        if options.get("markup", "False") != "False":
            found.append(f"{node.lineno}: {called} with markup")
        if called.split(".")[-1] in ("TextColumn", "SpinnerColumn") and options.get("markup") != "False":
            found.append(f"{node.lineno}: {called} reads markup")
    return found


def test_the_check_of_the_code_sees_what_it_is_for() -> None:
    for line in (
        "print(1)",
        "Console()",
        "rich.console.Console(file=x)",
        "sys.stdout.write(x)",
        "typer.echo(x)",
        "c.print(x, markup=True)",
        "TextColumn('x')",
        "from rich.markup import escape",
        "from rich import print",
        "Text.from_markup(x)",
    ):
        assert refused(ast.parse(line)), line


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: "/".join(file.parts[-3:]))
def test_everything_is_written_by_the_one_module(file: Path) -> None:
    # a script of its own, which only the package reads
    if file != Path(str(terminal.__file__)) and file.name != "llama_server.py":
        assert refused(ast.parse(file.read_text(encoding="utf-8"))) == []


def test_the_package_is_searched() -> None:
    assert len(SHOWN) > 200 and sys.modules["toolkit.terminal"] is terminal
