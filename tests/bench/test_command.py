"""`toolkit bench` from outside, on the CPU with the tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import command
from toolkit.bench_results import Results
from toolkit.planning.calibration import store


def toolkit(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "180"},
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def measured(recipe: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    text = toolkit("bench", "--quick", "--recipe", str(recipe), "--variants", "peft,peft-nockpt", "--out", str(out))
    assert "turn 3 peft-nockpt" in text
    return out


@pytest.mark.slow
def test_quick_measures_judges_writes_and_keeps_its_predictions(measured: Path, tmp_path: Path) -> None:
    results = Results.load(measured)
    assert results.ok
    assert {arm.status for arm in results.arms.values()} == {"measured"}
    assert all(len(results.timed(name)) == 3 for name in results.arms)
    turns = [(turn.turn, turn.variant) for turn in results.turns]
    assert turns[:4] == [(1, "peft"), (1, "peft-nockpt"), (2, "peft-nockpt"), (2, "peft")]  # they alternate
    assert results.run["command"].startswith("python -m toolkit bench --quick")
    assert results.run["versions"]["torch"]
    assert (measured / "report.md").read_text().startswith("# ")
    assert "<svg" in (measured / "report.html").read_text()
    assert '"variant": "peft-nockpt"' in store().read_text()

    assert "+0.0%" in toolkit("bench", "compare", str(measured), str(measured / "results.jsonl"))
    page = tmp_path / "again.md"
    toolkit("bench", "report", str(measured), "--markdown", str(page))
    assert page.read_text() == (measured / "report.md").read_text()
    assert "| peft |" in toolkit("bench", "table", str(measured))
    text = toolkit("bench", "--quick", "--out", str(measured), code=2)
    assert "exists already" in text


@pytest.mark.model
@pytest.mark.endurance
def test_quick_with_the_real_model_passes_its_gates(tmp_path: Path) -> None:
    """What `make bench` does. No limit of time: under 3 minutes on two cores that nobody else uses."""
    out = tmp_path / "out"
    toolkit("bench", "--quick", "--out", str(out))
    results = Results.load(out)
    assert results.ok
    assert set(results.arms) == {"full-fp32", "peft-logits", "peft", "peft-nockpt", "peft-nodrop", "peft-1x"}
    assert all(arm.status == "measured" for arm in results.arms.values())
    peaks = {name: results.peak(name) or 0 for name in results.arms}
    assert peaks["full-fp32"] > 2 * peaks["peft"], "training every weight costs more than an adapter"
    assert peaks["peft-nockpt"] > peaks["peft"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--list"], 0, "unsloth-4bit-offload"),
        (["--quick", "--variants", "peft-nocpt"], 2, "did you mean peft-nockpt"),
        (["--quick", "--shape", "big"], 2, "wanted real, or ROWSxTOKENS"),
        (["compare", "a.jsonl", "b.jsonl"], 2, "no such file"),
    ],
)
def test_list_and_mistakes(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "180")
    found, out, err = command.toolkit(capsys, monkeypatch, "bench", *words)
    assert found == code and said in out + err and "Traceback" not in err


def test_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "claims.md"
    monkeypatch.setenv("COLUMNS", "180")
    code, out, _ = command.toolkit(capsys, monkeypatch, "bench", "--claims", "--markdown", str(page))
    assert code == 0 and "25 claims:" in out
    assert "65,536" in page.read_text()
