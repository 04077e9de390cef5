from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.toys import ADD, QWEN_LIKE, WEATHER, save_tokenizer, tool, weather_chat, weather_row, write_jsonl
from toolkit.chats import KINDS, Chat, ToolCall, Turn
from toolkit.data.check import CheckReport, check
from toolkit.data.table import find
from toolkit.data.violations import violations
from toolkit.errors import ModelError
from toolkit.recipe import LoadedRecipe
from toolkit.recipe.schema import DataSection, EvalSection, Recipe, SourceSection, TrainSection
from toolkit.terminal import new_console
from toolkit.words import counted


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    monkeypatch.setattr("toolkit.models.resolve", lambda model, weights=True: folder)
    return folder


def loaded(path: Path, **changes: Any) -> Any:
    sources = [SourceSection(source=str(path))]
    settings: dict[str, Any] = {"eval": EvalSection(holdout=0), "data": DataSection(sources=sources, num_proc=1)}
    return LoadedRecipe(Recipe(**settings | changes), path, (path,))


def printed(report: CheckReport) -> str:
    console = new_console(file=io.StringIO(), width=200)
    report.render(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def calling(*calls: ToolCall, tools: tuple[dict[str, Any], ...] = (WEATHER, ADD)) -> Chat:
    return replace(weather_chat(), turns=(Turn("user", "Go"), Turn("assistant", "", calls)), tools=tools)


UNITS = tool(
    "get_weather",
    city={"type": "string"},
    units_={"enum": ["metric", "imperial"]},
    at_={"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("get_wether", {}), "calls unknown tool get_wether, did you mean get_weather?"),
        (ToolCall("get_weather", {}), "get_weather: missing argument city"),
        (ToolCall("get_weather", {"city": "Oslo", "unit": "metric"}), "unknown argument unit, did you mean units?"),
        (ToolCall("get_weather", {"city": 1}), "argument city: 1 is not of type 'string'"),
        (ToolCall("get_weather", {"city": "Oslo", "at": "\x1b\x1b\\x1b"}), r"at: '\u001b\u001b\\x1b' is not of type"),
        (ToolCall("get_weather", {"city": "Oslo", "units": "SI"}), "argument units: 'SI' is not one of"),
        (ToolCall("get_weather", {"city": "Oslo", "at": {}}), "missing argument at.lat"),
    ],
)
def test_calls_are_held_against_their_schema(call: ToolCall, message: str) -> None:
    (problem,) = violations(calling(call, tools=(UNITS,)))
    assert problem.where == "chats.jsonl:1" and message in problem.message and problem.message.startswith("turn 2: ")


def test_good_calls_and_open_schemas_pass() -> None:
    assert violations(weather_chat()) == []
    open_tool = tool("f")
    open_tool["function"]["parameters"] = {}
    assert violations(calling(ToolCall("f", {"any": 1}), tools=(open_tool,))) == []
    open_tool["function"]["parameters"] = {"type": "object", "properties": {}, "additionalProperties": True}
    assert violations(calling(ToolCall("f", {"any": 1}), tools=(open_tool,))) == []


def test_broken_schemas_twins_and_unmatched_results_are_found() -> None:
    broken = tool("f", "", a={"type": "text"})
    assert (
        "its parameters are no JSON schema: properties.a.type: 'text' is no type"
        in violations(calling(tools=(broken,)))[0].message
    )
    assert "two tools are called add" in violations(calling(tools=(ADD, ADD)))[0].message
    two = (ToolCall("get_weather", {"city": "Oslo"}), ToolCall("get_weather", {"city": "Bergen"}))
    turns = (Turn("user", "Go"), Turn("assistant", "", two), Turn("tool", "1"), Turn("assistant", "So."))
    assert "2 calls before it, but 1 results" in violations(replace(weather_chat(), turns=turns))[0].message
    turns = (Turn("user", "Go"), Turn("assistant", "Yes."), Turn("tool", "1"), Turn("assistant", "So."))
    assert "a tool result without a call" in violations(replace(weather_chat(), turns=turns))[0].message


def test_a_name_in_the_data_breaks_no_line() -> None:
    forged = "a\r\x1b[2K\ndata ok"
    broken = tool("f", "", **{forged: {"type": forged}})
    found = violations(calling(ToolCall("get_weather", {"city": "Oslo", forged: 1}), tools=(broken, WEATHER)))
    lines = printed(CheckReport(violations=found)).splitlines()
    assert len(found) == 2 and len(lines) == 1 + 1 + 2 + 1, lines
    assert [line for line in lines if line.startswith("data ")] == ["data not ok"]
    assert all("a\\r\\u001b[2K\\ndata ok" in line for line in lines[2:4])


def test_good_data_is_ok_and_its_table_kept(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row(f"city {i}", kind="single") for i in range(20)])
    recipe = loaded(path, eval=EvalSection(holdout=5))
    report = check(recipe)
    assert report.ok and report.chats == 20 and report.kinds == {"single": 20}
    assert report.sources == {(str(path), "messages"): 20}
    assert {name: part.meta["chats"] for name, part in report.parts.items()} == {"train": 15, "eval": 5}
    assert sum(report.parts["train"].counts) == 15
    table = find(recipe.recipe, model)
    assert table is not None and table.n_chats == 15
    text = printed(report)
    for expected in ("single", "messages", "tokens by role", "rows by tokens", "cuts 0 rows", "data ok"):
        assert expected in text
    assert printed(check(recipe)) == text, "a second check reads the kept table and says the same"


def test_a_table_that_another_process_makes_meanwhile_is_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = loaded(write_jsonl(tmp_path / "x.jsonl", [weather_row()]))
    assert check(recipe).ok
    (made,) = (tmp_path / "cache" / "tables").iterdir()
    before = made.stat().st_ino
    monkeypatch.setattr("toolkit.data.check.find", lambda *_: None)
    assert check(recipe).ok and made.stat().st_ino == before
    assert list(made.parent.iterdir()) == [made]


def test_other_kinds_are_explained(tmp_path: Path, model: Path) -> None:
    plain = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    kinds = [None, None, "single", "refusal", "blue", ["x"]]
    rows = [{**(weather_row(f"city {i}") if i else plain), "kind": kind} for i, kind in enumerate(kinds)]
    report = check(loaded(write_jsonl(tmp_path / "x.jsonl", rows)))
    assert report.ok and report.kinds == {"other": 5, "single": 1}
    assert "other: 5 chats whose rows name no kind, 4 of them with calls." in printed(report)
    assert report.findings == [
        f"{tmp_path}/x.jsonl:5: rows: key kind is not used: none of {', '.join(KINDS[:-1])} [2 rows]",
        f"{tmp_path}/x.jsonl:4: rows: key kind is not used: refusal, did you mean refuse? [1 row]",
    ]
    told = printed(check(loaded(write_jsonl(tmp_path / "y.jsonl", rows[2:3]))))
    assert "name no kind" not in told


def test_everything_wrong_is_found_at_once(tmp_path: Path, model: Path) -> None:
    no_answer = weather_row()
    no_answer["messages"] = no_answer["messages"][:2]
    wrong_type = weather_row(42)  # type: ignore[arg-type]
    rows = [
        weather_row("A"),
        weather_row("B"),
        weather_row("A"),
        no_answer,
        weather_row("<|im_end|>"),
        wrong_type,
        "text",
    ]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    held = write_jsonl(tmp_path / "held.jsonl", [weather_row("B"), weather_row("C")])
    recipe = loaded(path, eval=EvalSection(sources=[SourceSection(source=str(held))]))
    report = check(recipe)
    assert not report.ok
    assert [problem.where for problem in report.bad] == [
        f"{path}:4",
        f"{path}:7",
        f"{path}:5",
    ]
    assert [problem.where for problem in report.duplicates] == [f"{path}:3"]
    assert [problem.where for problem in report.leaked] == [f"{held}:1"]
    assert [problem.where for problem in report.violations] == [f"{path}:6"]
    assert find(recipe.recipe, model) is None, "a table that lacks rows is not kept"
    assert list((tmp_path / "cache" / "tables").glob(".check*")) == []
    text = printed(report)
    assert f"{path}:4: no assistant turn" in text and "data not ok" in text


def test_what_rows_say_and_training_does_not_use_is_reported(tmp_path: Path, model: Path) -> None:
    rows = [weather_row("A", id=1, kind="single"), weather_row("B", id=2), weather_row("C")]
    rows[1]["messages"][4]["weight"] = 0
    rows[2]["messages"][4] = {"role": "assistant", "content": '{"name": "get_weather", "arguments": {"city": "C"}}'}
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    report = check(loaded(path))
    assert report.ok and report.untrained == 1
    assert report.findings == [
        f"{path}:3: looks like a tool call, but it was read as text: an assistant's text is the JSON of a call [1 row]",
        f"{path}:1: rows: key id is not used [2 rows]",
    ]
    text = printed(report)
    for line in report.findings:
        assert line in text
    assert "data ok; 2 findings above, worth a look" in text
    assert "all but the turn that says so" in text
    assert printed(check(loaded(path))) == text


@pytest.mark.parametrize(("max_bad", "kept"), [(0.0, False), (0.4, False), (0.5, True)])
def test_as_many_rows_may_be_bad_as_the_recipe_says(tmp_path: Path, model: Path, max_bad: float, kept: bool) -> None:
    no_answer = weather_row()
    no_answer["messages"] = no_answer["messages"][:2]
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row("A"), weather_row("<|im_end|>"), no_answer, weather_row("B")])
    data = DataSection(sources=[SourceSection(source=str(path))], num_proc=1, max_bad=max_bad)
    recipe = loaded(path, data=data)
    report = check(recipe)
    assert [problem.where for problem in report.bad] == [f"{path}:3", f"{path}:2"]
    assert report.ok == kept
    table = find(recipe.recipe, model)
    assert (table is not None) == kept
    text = printed(report)
    if table is not None:
        assert table.n_chats == 2 and "data ok, without 2 bad rows" in text
        assert (table.meta["bad_rows"], table.meta["read_rows"], table.meta["left_out"]) == (2, 4, [f"{path}:2"])
        assert table.meta["bad"][0][0] == f"{path}:3" and table.meta["unrendered"][0][0] == f"{path}:2"
        assert printed(check(recipe)) == text
    else:
        assert f"2 of 4 rows can't be used (50.00%), more than data.max_bad = {max_bad:g} allows" in text
        assert "--set data.max_bad=0.5" in text and "data not ok" in text


def test_chats_that_all_fail_to_be_rendered_are_said_and_no_crash(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row("<|im_end|>")])
    for max_bad in (0.0, 1.0):
        data = DataSection(sources=[SourceSection(source=str(path))], num_proc=1, max_bad=max_bad)
        report = check(loaded(path, data=data))
        assert not report.ok and f"{path}:1" in str(report.bad[0])
        assert "no chat of the train part could be tokenised" in printed(report).replace("\n", " ")


def test_rows_without_answers_are_a_limit_not_a_crash(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row("A"), weather_row("far " * 900)])
    report = check(loaded(path, train=TrainSection(max_length=700)))
    assert not report.ok and "1 of 2 rows (50.0%)" in str(report.limits[0])
    assert f"1 have no answer left and are dropped: {path}:2" in printed(report).replace("\n", " ")


def test_without_the_model_rows_are_still_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(model: Any, weights: bool = True) -> Path:
        raise ModelError("no network")

    monkeypatch.setattr("toolkit.models.resolve", nowhere)
    report = check(loaded(write_jsonl(tmp_path / "x.jsonl", [weather_row()])))
    assert report.chats == 1 and not report.parts
    assert report.ok and not report.complete
    text = printed(report)
    assert "not tokenised, so lengths and cuts are unknown: no network" in text
    assert "data checked in part" in text and "data ok" not in text


def test_a_share_of_few_chats_is_told_of(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row(f"City {i}") for i in range(40)])
    report = check(loaded(path, eval=EvalSection(holdout=0.1)))
    held_out = report.parts["eval"].meta["chats"]
    assert report.ok and 0 < held_out < 12
    assert f"eval.holdout = 0.1 holds out {counted(held_out, 'chat')}, too few to say how the model" in printed(report)
    assert "give their number instead of a share, as eval.holdout = 12 or more" in printed(report)
    number = check(loaded(path, eval=EvalSection(holdout=4)))
    assert not number.held_out and number.parts["eval"].meta["chats"] == 4
    assert "too few" not in check(loaded(path, eval=EvalSection(holdout=0.5))).held_out


def test_a_held_out_number_that_leaves_little_to_train_on_is_told_of(tmp_path: Path, model: Path) -> None:
    """The default is more than there is of a few hundred chats."""
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row(f"City {i}") for i in range(210)])
    report = check(loaded(path, eval=EvalSection()))
    told = (
        "eval.holdout = 200 holds out 200 chats and leaves 10 to train on: "
        "set a lower number, as eval.holdout = 21, or name other chats in eval.sources"
    )
    assert report.ok and told in printed(report)
    assert not check(loaded(path, eval=EvalSection(holdout=21))).held_out


def test_chats_that_are_too_long_are_not_said_to_be_held_out(tmp_path: Path, model: Path) -> None:
    """Where none that is trained on has an answer left within max_length, they are no fewer."""
    long = weather_row("far " * 900)
    for number in range(20):  # until the short one is held out, by its hash
        path = write_jsonl(tmp_path / "x.jsonl", [weather_row(f"City {number}"), long])
        report = check(loaded(path, train=TrainSection(max_length=700), eval=EvalSection(holdout=1)))
        if list(report.parts) == ["eval"]:
            break
    assert list(report.parts) == ["eval"] and not report.ok
    assert not report.held_out
