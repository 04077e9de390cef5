"""`toolkit runs`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.reports.folders import make_run
from toolkit.cli import app
from toolkit.errors import RunError
from toolkit.reports.listing import list_runs


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


def test_a_run_that_can_not_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    bad.recipe.write_text("nonsense = 1\n")
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert listed.exit_code == 0
    assert "can't be read" in listed.output and "finished" in listed.output


def test_nothing_to_list(tmp_path: Path) -> None:
    assert "no runs in" in CliRunner().invoke(app, ["runs", str(tmp_path)]).output
    with pytest.raises(RunError, match="no such folder"):
        list_runs(tmp_path / "none")
