"""BFCL's files: gold answers are right in every category, and every way to spoil one is wrong.

With TOOLKIT_BFCL naming the folder or wheel of `bfcl-eval`, the whole of its files are put through the same tests.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.bfcl_files import RAIN, ROWS, gold, spoilt, write_files
from toolkit.chats import Chat, ToolCall
from toolkit.data.call_parsing import parse
from toolkit.data.calls import write_calls
from toolkit.data.violations import violations
from toolkit.errors import DataError
from toolkit.evaluation import bfcl
from toolkit.evaluation.evaluate import prompted_turns
from toolkit.evaluation.scoring import Score, score


@pytest.fixture(params=["own", "real"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> bfcl.Found:
    if request.param == "own":
        return bfcl.read(str(write_files(tmp_path / "files")))
    if not (source := os.environ.get("TOOLKIT_BFCL")):
        pytest.skip("TOOLKIT_BFCL names no folder or wheel of bfcl-eval")
    return bfcl.read(source)


def judged(chat: Chat, calls: list[ToolCall]) -> Score:
    (turn,) = prompted_turns(chat, "first")
    assert turn == len(chat.turns) - 1
    return score(chat, turn, parse(write_calls(calls, "json"), "json"))


def test_gold_answers_are_right_in_every_category(found: bfcl.Found) -> None:
    for category, chats in found.chats.items():
        assert chats
        for chat in chats:
            if chat.kind in ("irrelevance", "relevance"):
                continue
            result = judged(chat, gold(chat))
            assert result.correct and result.exact and result.name_correct, (category, chat.where)
            assert (result.argument_recall, result.argument_precision) == (1.0, 1.0), chat.where


def test_parallel_calls_are_right_in_any_order(found: bfcl.Found) -> None:
    for category in (name for name in found.chats if "parallel" in name):
        for chat in found.chats[category]:
            assert judged(chat, gold(chat)[::-1]).correct, chat.where


def test_spoilt_answers_are_wrong_in_every_category(found: bfcl.Found) -> None:
    seen = set()
    for chats in found.chats.values():
        for chat in chats:
            if not chat.meta["bfcl"]:
                continue
            for what, calls in spoilt(chat):
                seen.add(what.split()[-1])
                assert not judged(chat, calls).correct, (chat.where, what, calls)
    assert len(seen) > 5


def test_no_call_is_right_where_none_fits_and_wrong_where_one_does(found: bfcl.Found) -> None:
    for chats in found.chats.values():
        for chat in chats:
            # some questions offer no tool at all
            call = ToolCall(chat.tools[0]["function"]["name"] if chat.tools else "any", {})
            if chat.kind == "irrelevance":
                assert judged(chat, []).correct and judged(chat, []).abstained
                assert not judged(chat, [call]).correct
            elif chat.kind == "relevance":
                assert judged(chat, [call]).correct
                assert not judged(chat, []).correct and not judged(chat, [ToolCall("made_up", {})]).correct


def test_schemas_are_json_schema(found: bfcl.Found) -> None:
    for chats in found.chats.values():
        for chat in chats:
            assert not [one for one in violations(chat) if "no JSON schema" in one.message], chat.where


def test_own_files(tmp_path: Path) -> None:
    found = bfcl.read(str(write_files(tmp_path / "files")))
    assert set(found.chats) == set(ROWS) and found.unsupported == ["multi_turn_base"]
    chat = found.chats["simple_python"][0]
    assert (chat.kind, chat.source, chat.where) == ("single", "bfcl:simple_python", "bfcl:simple_python_0")
    properties = chat.tools[0]["function"]["parameters"]["properties"]
    assert {key: about.get("type") for key, about in properties.items()} == {
        "to": "string",
        "seats": "integer",
        "price": "number",
        "legs": "array",
        "place": "array",
        "extra": "object",
        "note": None,
        "direct": "boolean",
    }
    assert properties["place"]["items"] == {"type": "number"}
    java = found.chats["simple_java"][0].tools[0]["function"]["parameters"]["properties"]
    assert java["ids"]["type"] == "string" and "Java ArrayList" in java["ids"]["description"]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"to": "oslo norway"}, True),  # case, spaces and commas do not count
        ({"seats": 2.0}, True),
        ({"price": 99.5}, True),
        ({"price": 100}, False),
        ({"seats": "2"}, False),
        ({"legs": ["a1", "B2"]}, True),
        ({"legs": ["B2", "a1"]}, False),
        ({"place": [59.9, 10.7]}, True),
        ({"place": [59.9]}, False),
        ({"extra": {"meal": "Fish dish"}}, True),
        ({"extra": {"meal": "fish", "bags": 1}}, True),
        ({"extra": {"bags": 1}}, False),
        ({"extra": {"meal": "fish", "bags": 2}}, False),
        ({"note": None}, True),
        ({"note": 5}, False),
        ({"direct": True}, True),
        ({"direct": 1}, False),
        ({"direct": "true"}, False),
    ],
)
def test_values(tmp_path: Path, change: dict[str, Any], right: bool) -> None:
    chat = bfcl.read(str(write_files(tmp_path / "files"))).chats["simple_python"][0]
    call = ToolCall("flights.book", {"to": "Oslo", "seats": 2, **change})
    result = judged(chat, [call])
    assert result.correct is result.exact is result.exact_but_case is right


@pytest.mark.parametrize(
    ("category", "change", "right"),
    [
        ("simple_java", {"ids": "new ArrayList<Long>() {{ add(101L); add(202L); }}"}, True),
        ("simple_java", {"ids": "List.of(101L, 202L)"}, True),
        ("simple_java", {"ids": "new long[]{101, 202}"}, True),
        ("simple_java", {"ids": "new long[]{101}"}, False),
        ("simple_java", {"ids": [101, 202]}, False),  # these functions take text
        ("simple_java", {"key": '"a key"'}, True),
        ("simple_java", {"timeout": "5L"}, True),
        ("simple_java", {"timeout": "6L"}, False),
        ("simple_java", {"deep": "false"}, False),
        ("simple_java", {"deep": "True"}, False),  # source text, whose case does count
        ("simple_java", {"opts": 'Map.of("limit", 50, "mode", "fast")'}, True),
        ("simple_javascript", {"data": "{state: 'initial', hooks: [`a`, \"b\"]}"}, True),
        ("simple_javascript", {"data": "{state: initial, hooks: ['a', 'b']}"}, True),
        ("simple_javascript", {"data": "{state: 'other', hooks: ['a', 'b']}"}, False),
        ("simple_javascript", {"points": "new Array(1.5, 2)"}, True),
        ("simple_javascript", {"live": "true"}, False),
        ("simple_javascript", {"size": 3.0}, False),
    ],
)
def test_values_of_other_languages(tmp_path: Path, category: str, change: dict[str, Any], right: bool) -> None:
    chat = bfcl.read(str(write_files(tmp_path / "files"))).chats[category][0]
    (call,) = gold(chat)
    result = judged(chat, [replace(call, arguments={**call.arguments, **change})])
    assert result.correct is result.exact is result.exact_but_case is right


def test_the_last_turn_of_a_longer_question_is_asked(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files")
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Sing.")]
    row = {"id": "x", "question": [[{"role": role, "content": text} for role, text in turns]], "function": [RAIN]}
    (folder / "BFCL_v4_live_irrelevance.json").write_text(json.dumps(row))
    (chat,) = bfcl.read(str(folder)).chats["live_irrelevance"]
    assert judged(chat, []).abstained is True
    assert judged(chat, [ToolCall("rain", {})]).abstained is False


def test_a_wheel_is_read_as_it_is(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files")
    wheel = tmp_path / "bfcl_eval-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(folder.rglob("*.json")):
            archive.write(file, f"bfcl_eval/data/{file.relative_to(folder)}")
    assert bfcl.read(str(wheel)).chats.keys() == bfcl.read(str(folder)).chats.keys()


def test_spread_takes_as_many_of_each_category(tmp_path: Path) -> None:
    found = bfcl.read(str(write_files(tmp_path / "files")))
    (one,), (other,) = found.chats["multiple"], found.chats["parallel"]
    many = bfcl.Found({"a": [one] * 5, "b": [other], "c": [one] * 3}, [])
    assert [chat.kind for chat in bfcl.spread(many, 6)].count("parallel") == 1
    assert [len(bfcl.spread(many, count)) for count in (1, 6, 9, 99)] == [1, 6, 9, 9]


def test_what_is_wrong_with_files_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*pip download"):
        bfcl.read(str(tmp_path / "nothing"))
    (tmp_path / "BFCL_v4_multi_turn_base.json").write_text("{}")
    with pytest.raises(DataError, match="only multi_turn_base, which are not supported"):
        bfcl.read(str(tmp_path))
    (tmp_path / "BFCL_v4_multiple.json").write_text('{"id": "multiple_0"}\nnot json\n')
    with pytest.raises(DataError) as caught:
        bfcl.read(str(tmp_path))
    assert sorted(problem.where.rpartition("/")[2] for problem in caught.value.problems) == [
        "BFCL_v4_multiple.json:1",
        "BFCL_v4_multiple.json:2",
    ]
