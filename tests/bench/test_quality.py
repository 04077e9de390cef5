"""`toolkit bench --quality`: real runs to a target, rows that are kept, and what is made of them."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import quality
from bench.quality_rows import FILE, Row, Status, saved, score
from tests.tiny import write_chats, write_recipe
from toolkit.errors import InputError, RunError
from toolkit.terminal import new_console


def row(seconds: float = 10.0, status: Status = "reached", **values: Any) -> Row:
    usual = {"key": "k", "variant": "peft-packed", "seed": 0, "target": 0.8, "update": 5, "right": 0.8, "answers": 40}
    known: dict[str, Any] = {"date": "", "card": "", "versions": {}, "status": status, "seconds": seconds}
    return Row(**known | usual | values)


def stand_ins(monkeypatch: pytest.MonkeyPatch, status: Status = "reached") -> list[float]:
    """The minutes of each run that is asked for; none is made, but its row."""
    asked: list[float] = []

    def run(_: Path, trial: quality.Trial, target: float, minutes: float, out: Path) -> Row:
        asked.append(minutes)
        machine = quality._machine()
        return row(status=status, key=trial.key, minutes=minutes, card=machine.card, versions=machine.versions)

    monkeypatch.setattr(quality, "_run", run)
    monkeypatch.setattr(quality, "_make_table", lambda *_: None)
    return asked


def compare(recipe: Path, out: Path, **options: Any) -> None:
    usual: dict[str, Any] = {"target": 0.8, "seeds": 1, "minutes": 1.0, "variants": "peft-packed"}
    usual["overrides"] = ("eval.generate=4", 'eval.generate_steps="eval"')
    assert quality.run_quality(recipe, **usual | options, out=out, console=new_console())


@given(st.lists(st.floats(1, 1e4), min_size=3, max_size=9))
def test_the_best_and_the_worst_seed_do_not_count(seconds: list[float]) -> None:
    counted = sorted(seconds)[1:-1]
    assert score([row(value) for value in seconds]) == pytest.approx(sum(counted) / len(counted))


@pytest.mark.parametrize(("missed", "known"), [(0, True), (1, True), (2, False), (5, False)])
def test_one_seed_that_does_not_get_there_is_the_worst_and_two_are_too_many(missed: int, known: bool) -> None:
    rows = [row(3.0, "ended") for _ in range(missed)] + [row() for _ in range(5 - missed)]
    assert math.isfinite(score(rows)) is known


WRITES = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with open(sys.argv[1], "w", buffering=1) as file:
    for update, right in ((0, 0.9), (4, None), (8, 0.5), (12, 0.85)):
        file.write(json.dumps({"update": update, "eval_loss": 1.0} | ({"eval_calls": right} if right else {})) + "\\n")
    file.write('{"update": 16, "eval_l')
    file.flush()
    time.sleep(60)
"""


def test_a_run_is_watched_to_its_target_and_told_to_end(tmp_path: Path) -> None:
    """What the base model can is no merit, and a row that is half written waits."""
    log = tmp_path / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(log)])
    evaluations: list[tuple[float, int, float, float]] = []
    assert quality._watch(process, log, evaluations, time.perf_counter(), 0.8, 1.0) == "reached"
    assert [found[1:3] for found in evaluations] == [(0, 0.9), (8, 0.5), (12, 0.85)]
    quality._end(process)
    assert process.returncode == 7, "it was told, not killed"


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert quality._watch(process, tmp_path / "none", [], time.perf_counter(), 0.8, 0.001) == "time"
    quality._end(process)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.slow
def test_runs_are_made_once_and_a_failed_one_again(
    tmp_path: Path, tiny_model: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model gets no call right in a few updates: the run ends without."""
    settings = {"generate": 4, "generate_steps": "eval", "eval_steps": 2, "max_new_tokens": 8, "holdout": 8}
    recipe = write_recipe(tmp_path, tiny_model, 20, eval=settings, train={"max_steps": 4})
    out = tmp_path / "out"

    def compare() -> str:
        assert quality.run_quality(
            recipe,
            target=1.0,
            seeds=1,
            minutes=5.0,
            variants="peft-packed",
            overrides=(),
            out=out,
            console=new_console(),
        )
        return capsys.readouterr().out

    assert "0 of 1" in compare()
    (made,) = saved(out)
    assert (made.status, made.update, made.answers) == ("ended", 4, 4)
    assert [found[1] for found in made.evaluations] == [0, 2, 4]
    assert made.evaluations == sorted(made.evaluations) and made.evaluations[-1][0] <= made.seconds
    assert not list((out / "runs").iterdir()), "runs are not kept"

    asked = stand_ins(monkeypatch)
    assert "1 of them in" in compare() and not asked
    (out / FILE).write_text((out / FILE).read_text().replace('"ended"', '"failed"'))
    assert "1 of 1" in compare() and asked == [5.0]


@pytest.mark.parametrize(
    ("status", "had", "asked", "again"),
    [("time", 1.0, 2.0, True), ("time", 2.0, 2.0, False), ("time", 2.0, 1.0, False), ("reached", 1.0, 2.0, False)],
)
def test_a_run_that_was_stopped_is_made_again_when_it_may_take_longer(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: Status,
    had: float,
    asked: float,
    again: bool,
) -> None:
    runs = stand_ins(monkeypatch, status)
    compare(recipe, tmp_path / "out", minutes=had)
    compare(recipe, tmp_path / "out", minutes=asked)
    compare(recipe, tmp_path / "out", minutes=asked)
    assert runs == ([had, asked] if again else [had])


def test_rows_of_other_chats_are_not_those_of_today(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = stand_ins(monkeypatch)
    compare(recipe, tmp_path / "out")
    write_chats(tmp_path / "chats.jsonl", 60, seed=5)
    compare(recipe, tmp_path / "out")
    compare(recipe, tmp_path / "out")
    assert len(runs) == 2
    write_chats(tmp_path / "chats.jsonl", 60)
    compare(recipe, tmp_path / "out")
    assert len(runs) == 2, "the first chats are known again"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seen_gpus", lambda: [SimpleNamespace(name="NVIDIA B200")], "card {card}, here NVIDIA B200"),
        ("versions", lambda: {"toolkit": "99", "new": "1"}, "toolkit {toolkit}, here 99"),
    ],
)
def test_rows_of_another_card_or_of_other_versions_stay_in_the_file_and_are_not_used(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: Any,
    line: str,
) -> None:
    runs, out = stand_ins(monkeypatch), tmp_path / "out"
    before = quality._machine()
    compare(recipe, out)
    compare(recipe, out)
    assert "not used" not in capsys.readouterr().out and len(runs) == 1
    monkeypatch.setattr(quality, name, value)
    compare(recipe, out)
    told = capsys.readouterr().out
    assert f"not used   1 row of {out / FILE}: " in told
    assert line.format(card=before.card, toolkit=before.versions["toolkit"]) in told
    assert ("new none, here 1" in told) is (name == "versions")
    compare(recipe, out)
    assert len(runs) == 2 and len(saved(out)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": ("eval.generate=0",)}, "eval.generate=200"),
        ({"overrides": ("eval.generate=8", "eval.generate_steps=0")}, "eval.generate_steps"),
        ({"overrides": ("train.seed=7",)}, r"^--set train.seed=7: --quality gives every run the seeds 0, 1 and so on"),
        ({"overrides": ("train.save_steps=9",)}, "every run train.save_steps=1000000000, as the time"),
        ({"overrides": ('eval.best="loss"',)}, r'^--set eval.best="loss": .*leave eval.best out$'),
        ({"overrides": ("eval={early_stopping_patience = 3}",)}, "leave eval.early_stopping_patience out"),
        (
            {"overrides": ("export.gguf=['q8_0']", "train.report_to=['x']")},
            r"export.gguf=\[\][^\n]*\n.*train.report_to=",
        ),
        ({"overrides": ("train.report_to.0=x",)}, "leave train.report_to out"),
        ({"variants": "peft-packed+train.seed=7"}, r"^--variants peft-packed\+train.seed=7: train.seed=7: .*--seeds"),
        ({"variants": "full-fp32"}, "full-fp32"),
        ({"variants": "peft-paked"}, "did you mean"),
    ],
)
def test_what_can_not_be_compared_is_refused(
    recipe: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    usual: dict[str, Any] = {"target": 0.8, "seeds": 1, "minutes": 1.0, "variants": None, "overrides": ()}
    with pytest.raises(InputError, match=message):
        quality.run_quality(recipe, **usual | options, out=tmp_path / "out", console=new_console())
    assert not (tmp_path / "out").exists()


def test_another_file_is_no_comparison(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"arm": "peft"}\n')
    with pytest.raises(RunError, match="not rows of"):
        saved(tmp_path)
