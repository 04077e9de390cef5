from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import DataError
from toolkit.evaluation.results import Comparison, Evaluation, Row, repeated, shown
from toolkit.evaluation.tables import render
from toolkit.terminal import new_console


def row(
    number: int, *, correct: bool, kind: str = "single", split: str = "phrasing", text: str = "", **scores: Any
) -> Row:
    return Row(
        where=f"chats.jsonl:{number}",
        turn=1,
        kind=kind,
        split=split,
        source="chats.jsonl",
        user=f"question {number} [bold]",
        expected="expected",
        generated=text or f"answer {number}",
        expected_calls=[],
        generated_calls=[{"name": "f", "arguments": {"x": "\ud800", "y": 1.5}}],
        problems=[],
        scores={"correct": correct, "abstained": None, **scores},
        new_tokens=7,
        stopped=number % 2 == 0,
    )


def evaluations() -> tuple[Evaluation, Evaluation]:
    before = Evaluation(
        [
            row(0, correct=False),
            row(1, correct=True),
            row(2, correct=False, kind="refuse", split="tools", refused=False, text="Done [/] it"),
            row(3, correct=False, kind="irrelevance", abstained=False),
        ]
    )
    after = Evaluation(
        [
            row(3, correct=False, kind="irrelevance", abstained=False),
            row(0, correct=True),
            row(1, correct=False),
            row(2, correct=True, kind="refuse", split="tools", refused=True, text="I won't [/b]"),
        ],
        {"call_format": "json"},
    )
    return before, after


def test_summary_counts_by_kind_split_and_source() -> None:
    summary = json.loads(json.dumps(evaluations()[1].summary()))
    assert summary["turns"] == 4
    assert summary["overall"]["correct"] == pytest.approx(
        {"hits": 2, "n": 4, "share": 0.5, "low": 0.150, "high": 0.850}, abs=1e-3
    )
    assert list(summary["by_kind"]) == ["single", "refuse", "irrelevance"]
    assert summary["by_kind"]["single"]["correct"]["n"] == 2
    assert summary["overall"]["abstained"]["n"] == 1  # None does not count
    assert "abstained" not in summary["by_kind"]["single"]
    assert {split: rates["correct"]["hits"] for split, rates in summary["by_split"].items()} == {
        "phrasing": 1,
        "tools": 1,
    }
    assert list(summary["by_source"]) == ["chats.jsonl"]
    assert summary["new_tokens"] == 28
    assert summary["stopped"]["hits"] == 2


def test_rows_come_back_from_a_file(tmp_path: Path) -> None:
    _, after = evaluations()
    path = tmp_path / "evaluation" / "after.jsonl"
    after.save(path)
    assert Evaluation.load(path) == after
    assert [one.name for one in path.parent.iterdir()] == ["after.jsonl"]


@pytest.mark.parametrize("text", ['{"a": 1}\n', "no JSON\n", '{"evaluation": {}}\n{"where": "x"}\n'])
def test_another_file_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"x\.jsonl:{text.count(chr(10))}: not a line of a saved evaluation"):
        Evaluation.load(path)


def test_comparison_pairs_rows_whatever_their_order() -> None:
    comparison = Comparison.of(*evaluations())
    paired = comparison.paired()
    assert (paired.n, paired.gained, paired.lost) == (4, 2, 1)
    assert comparison.paired("refused").gained == 1
    assert comparison.paired("refused").n == 1
    assert comparison.of_kind("single").paired().n == 2
    assert [after.where for _, after in comparison.flips(gained=True)] == ["chats.jsonl:0", "chats.jsonl:2"]
    assert [after.where for _, after in comparison.flips(gained=False)] == ["chats.jsonl:1"]


def test_chats_numbered_alike_in_two_splits_are_not_mixed_up() -> None:
    before = Evaluation([row(0, correct=True, split="phrasing"), row(0, correct=False, split="tools")])
    after = Evaluation([row(0, correct=False, split="tools"), row(0, correct=True, split="phrasing")])
    assert Comparison.of(before, after).paired().gained == 0


def test_answers_cut_before_they_could_be_right_are_told_from_endless_ones() -> None:
    done = replace(row(0, correct=True), expected="abc", generated="abcd")
    endless = replace(row(1, correct=False), expected="abc", generated="abababab", stopped=False)
    short = replace(row(2, correct=False), expected="a long call", generated="a long", stopped=False)
    short.expected_calls.append({"name": "f", "arguments": {}})
    settings = {"max_new_tokens": 128}
    assert Evaluation([done], settings).cut() == ""
    assert Evaluation([done, endless], settings).cut() == "1 of 2 answers was cut at eval.max_new_tokens = 128"
    assert Evaluation([done, endless, short], settings).cut() == (
        "2 of 3 answers were cut at eval.max_new_tokens = 128; the calls expected of 1 are longer, so raise it"
    )
    by_flag = Evaluation([endless], {**settings, "limit_of": "--max-new-tokens"})
    assert by_flag.cut() == "1 of 1 answer was cut at --max-new-tokens = 128"
    assert Evaluation([short], {"executed": True}).cut() == "1 of 1 answer was cut at the token limit"


def test_evaluations_of_other_chats_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="no chat in common"):
        Comparison.of(Evaluation([row(0, correct=True)]), Evaluation([row(1, correct=True)]))


def printed(evaluation: Evaluation, before: Evaluation | None) -> str:
    console = new_console(file=io.StringIO(), width=100)
    render(evaluation, console, before)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_counts_intervals_differences_and_flips() -> None:
    before, after = evaluations()
    text = printed(after, before)
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") == 5}
    assert "1/4  25% (5-70)" in lines["all"] and "2/4  50% (15-85)" in lines["all"] and "+25" in lines["all"]
    assert "0/1   0%" in lines["refuse"] and "1/1 100%" in lines["refuse"]
    assert "2 of 4 became right, 1 became wrong (exact McNemar test: p = 1)" in text
    assert "became right (single, chats.jsonl:0)" in text
    assert "question 0 [bold]" in text and "Done [/] it" in text and "I won't [/b]" in text
    assert "became wrong (single, chats.jsonl:1)" in text
    assert "2 of 4 answers were cut at the token limit" in text


def test_the_table_alone() -> None:
    text = printed(evaluations()[1], None)
    assert "2/4  50% (15-85)" in text
    assert "before" not in text and "McNemar" not in text


def test_what_a_right_answer_in_words_means_is_said() -> None:
    told = "answer: 1 chat to be answered in words, right where no call is made; what the words say is not judged"
    call, words = row(0, correct=True), replace(row(1, correct=True), kind="answer")
    assert told in printed(Evaluation([call, words]), None)
    assert "in words" not in printed(Evaluation([call]), None)


def measured(path: Path, *scores: dict[str, Any]) -> Evaluation:
    """An evaluation that was saved, and read again."""
    Evaluation([row(number, correct=one["exact"], **one) for number, one in enumerate(scores)]).save(path)
    return Evaluation.load(path)


def test_exact_but_for_case_is_shown_under_exact_calls_where_it_differs(tmp_path: Path) -> None:
    right, wrong = {"exact": True, "exact_but_case": True}, {"exact": False, "exact_but_case": False}
    differs = measured(tmp_path / "differs.jsonl", right, {"exact": False, "exact_but_case": True})
    same, none = measured(tmp_path / "same.jsonl", right, wrong), measured(tmp_path / "none.jsonl", wrong, wrong)
    for columns in ((differs, None), (differs, same), (same, differs)):
        lines = [line.split("│") for line in printed(*columns).splitlines() if "exact " in line and "│" in line]
        exact, but_case = ([cell.strip() for cell in line[1:-1]] for line in lines)
        assert exact[0] == "exact calls" and but_case[0] == "exact but for case and spaces"
        assert "1/2  50% (9-91)" in exact and "2/2 100% (34-100)" in but_case
    for columns in ((same, None), (same, none), (none, same)):
        assert "exact calls" in printed(*columns) and "but for case" not in printed(*columns)
    assert same.summary()["overall"]["exact_but_case"] == same.summary()["overall"]["exact"]


def test_rows_from_before_it_was_measured_are_read_and_shown(tmp_path: Path) -> None:
    old = measured(tmp_path / "old.jsonl", {"exact": True}, {"exact": False})
    assert "exact_but_case" not in old.summary()["overall"] and "but for case" not in printed(old, None)
    same = measured(tmp_path / "same.jsonl", *({"exact": one, "exact_but_case": one} for one in (True, False)))
    assert "but for case" not in printed(old, same) and "but for case" not in printed(same, old)
    differs = measured(tmp_path / "new.jsonl", *({"exact": one, "exact_but_case": True} for one in (True, False)))
    (line,) = (line for line in printed(old, differs).splitlines() if "but for case" in line)
    assert [cell.strip() for cell in line.split("│")[2:4]] == ["2/2 100% (34-100)", "none"]


def test_a_measure_that_only_repeats_another_is_not_shown() -> None:
    one, two = {"hits": 1, "n": 2}, {"hits": 2, "n": 2}
    old, same, differs = {"exact": one}, {"exact_but_case": one, "exact": one}, {"exact_but_case": two, "exact": one}
    for columns in ([], [old], [same, old], [same, {}]):
        assert repeated(columns) == ("exact_but_case",) and "exact_but_case" not in shown(columns)
    assert repeated([old, differs]) == () and shown([old, differs]) == ["exact", "exact_but_case"]
