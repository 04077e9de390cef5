"""Recipes and rows with something odd put into them, through the real command line in this process.

Each ends with exit code 0, or with 1 or 2 and lines that begin with `error:`; never with a traceback, and within a
minute of CPU time. `TOOLKIT_FUZZ=450 pytest -s -p no:xdist tests/bad_input/test_fuzzed_commands.py` tries that many of
each and prints what came of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bad_input.common import BASE
from tests.data.test_fuzzed_rows import rows
from tests.data.toys import weather_row
from tests.tiny import write_chats
from toolkit.commands import main as cli

EXAMPLES = int(os.environ.get("TOOLKIT_FUZZ", "15"))
HANG = 60  # seconds of CPU time; of the clock, on the busiest machine, many more
RECIPES = [path.read_text() for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))]
some = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


class Tried:
    """What came of the inputs so far."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.slowest = 0.0

    def call(self, *words: str) -> None:
        """Run a command line; fails on a traceback, on a hang, and on an error without a word."""
        before = sys.argv
        alarms = {number: signal.signal(number, self._late) for number in (signal.SIGPROF, signal.SIGALRM)}
        signal.setitimer(signal.ITIMER_PROF, HANG)
        signal.alarm(15 * HANG)
        out, err = io.StringIO(), io.StringIO()
        sys.argv = ["toolkit", *words]
        started = time.process_time()
        code: Any = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException as error:
            self.ends["traceback"] += 1
            raise AssertionError(f"{words}: {error!r}") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            for number, alarm in alarms.items():
                signal.signal(number, alarm)
            sys.argv = before
        self.slowest = max(self.slowest, time.process_time() - started)
        told = out.getvalue() + err.getvalue()
        bug = "Traceback" in told or "this is a bug" in told
        self.ends["hang" if "TimeoutError" in told else "traceback" if bug else f"exit code {code}"] += 1
        assert not bug, told
        assert code in (0, 1, 2)
        if code and words[:2] != ("data", "check"):  # which shows what is wrong in its report
            assert err.getvalue().strip(), told
            lines = [line for line in err.getvalue().splitlines() if not line.startswith(("note: ", "error: "))]
            assert not lines, lines
        assert "\x1b" not in told

    @staticmethod
    def _late(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {HANG} s")


@pytest.fixture(scope="module")
def tried() -> Iterator[Tried]:
    found = Tried()
    yield found
    total = sum(found.ends.values())
    told = ", ".join(f"{end}: {count}" for end, count in sorted(found.ends.items()))
    print(f"\n{total} command lines; {told}; the slowest took {found.slowest:.1f} s")


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write_chats(tmp_path / "chats.jsonl", 40)
    (tmp_path / "model").symlink_to(tiny_model)
    return tmp_path


VALUES = [
    *("true", "false", "0", "-1", "0.5", "1e300", "-1e300", "inf", "nan", "1e-320", "9" * 300, "9" * 5000),
    *("''", "'\\u001b[2J'", '"\\u001b]52;c;aGk=\\u0007"', '"\\u0000"', "'none'", "'auto'", "'..'", "'/'"),
    *("'builtin:tools'", "'pypi:x==1'", "'~nobody/x'", "'[/red]'", "'" + "a" * 3000 + "'"),
    *("[]", "{}", "[[]]", "[1, 'a']", "['q_proj']", "{ a = 1 }", "{ single = -1 }", "1979-05-27", "07:32:00"),
    *("[" * 900 + "]" * 900, "{ a = " * 200 + "1" + " }" * 200, "'''", "None", "yes", "2_048", "0x10", "~"),
]
ODD = st.one_of(
    st.sampled_from(VALUES),
    st.integers(-3, 40).map(str),
    st.floats(-1, 2).map(repr),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(lambda text: f"'{text}'"),
)
LINES = st.sampled_from(
    [
        *("[model]", "[lora]", "[data]", "[train]", "[eval]", "[export]", "[[data.sources]]", "[[eval.sources]]"),
        *("r = 4", "extends = 'x.toml'", "extends = 'none.toml'", "packing = true", "batch_size = 2", "a.b.c.d = 1"),
        *(
            "name = './model'",
            "source = 'chats.jsonl'",
            "columns = { user = 'q' }",
            "kinds = { single = 1.0 }",
            "[a" * 9,
        ),
        *("{", "- yaml: 1", "key: value", "#", "\ufeff", "\x00", "\r", "a = 'b", "[model.name]", "gguf = ['q8_0']"),
        *("max_length = 8", "holdout = 0.5", "max_steps = 0", "report_to = ['wandb']", "[train]\nfp16 = true"),
    ]
)


@st.composite
def changed(draw: st.DrawFn, text: str) -> str:
    """A recipe with one to three lines changed: another value, another key, gone, twice, or one that is new."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["value", "value", "value", "key", "drop", "twice", "new", "cut"]))
        key, equals, _ = lines[at].partition("=")
        if change == "value" and equals:
            lines[at] = f"{key}= {draw(ODD)}"
        elif change == "key" and equals:
            lines[at] = (
                f"{key.strip()[:-1]}{draw(st.sampled_from(['', 's', '.x', '-y', ' z']))} ={lines[at].partition('=')[2]}"
            )
        elif change == "drop":
            lines[at] = ""
        elif change == "twice":
            lines.insert(at, lines[at])
        elif change == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        else:
            lines.insert(at, draw(LINES))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("value", VALUES)
def test_each_odd_value_as_each_kind_of_setting(place: Path, tried: Tried, value: str) -> None:
    """What chance may leave out: every value once, as a number, a text, a list, a table, and by --set."""
    for line in ("r =", "target_modules =", "use_dora =", "bias =", "alpha_pattern =", "x.y ="):
        (place / "x.toml").write_text(f"{BASE}\n[lora]\n{line} {value}\n", encoding="utf-8")
        tried.call("plan", "x.toml", "--gpu", "t4")
    (place / "x.toml").write_text(BASE)
    for key in ("train.learning_rate", "train.max_length", "data.sources.0.weight", "model.name", "data"):
        tried.call("plan", "x.toml", "--gpu", "t4", "--set", f"{key}={value}".replace("\0", ""))


def small(text: str) -> bool:
    """Whether it trains for a moment at most where it is right: three updates, few chats."""
    steps = re.findall(r"^max_steps = (\S+)", text, re.M)
    return all(value in ("0", "1", "2", "3") for value in steps) and bool(steps) and "builtin" not in text


@some
@given(st.data())
def test_recipes_are_planned_or_refused(place: Path, tried: Tried, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(RECIPES).flatmap(changed))
    for path in (Path(__file__).parents[2] / "recipes").glob("*.toml"):
        (place / path.name).write_text(path.read_text())  # what they extend
    (place / "x.toml").write_text(text, encoding="utf-8", errors="replace")
    tried.call("plan", "x.toml", "--gpu", data.draw(st.sampled_from(["t4", "h200", "cpu"])))


@some
@given(changed(BASE))
def test_recipes_are_run_or_refused(place: Path, tried: Tried, text: str) -> None:
    (place / "x.toml").write_text(text, encoding="utf-8", errors="replace")
    tried.call("data", "check", "x.toml")
    tried.call("data", "preview", "x.toml", "-n", "1")
    if small(text):
        tried.call("run", "x.toml", "--out", "out")
        shutil.rmtree(place / "out", ignore_errors=True)


@some
@given(st.lists(rows(), min_size=1, max_size=2))
def test_rows_are_read_or_refused(place: Path, tried: Tried, found: list[Any]) -> None:
    good = json.dumps(weather_row())
    (place / "chats.jsonl").write_text("\n".join([good, *(json.dumps(row) for row in found), good]) + "\n")
    (place / "x.toml").write_text(BASE.replace("holdout = 4", "holdout = 0"))
    tried.call("data", "check", "x.toml")
    tried.call("data", "preview", "x.toml", "-n", "4")
    tried.call("plan", "x.toml", "--gpu", "t4")
    tried.call("data", "build", "x.toml", "--set", "data.max_bad=1", "--set", "data.max_dropped=1")
