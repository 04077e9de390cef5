"""BFCL's files: gold answers are right in every category, and every way to spoil one is wrong.

With TOOLKIT_BFCL naming the folder or wheel of `bfcl-eval`, the whole of its files are put through the same tests.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.calls import write_calls
from toolkit.data.chats import Chat, ToolCall
from toolkit.data.violations import violations
from toolkit.errors import DataError
from toolkit.evaluation import bfcl, literals
from toolkit.evaluation.evaluate import prompted_turns
from toolkit.evaluation.parsing import parse
from toolkit.evaluation.scoring import Score, score


def function(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    about = {key: value if isinstance(value, dict) else {"type": value} for key, value in properties.items()}
    parameters = {"type": "dict", "properties": about, "required": required}
    return {"name": name, "description": f"Does {name}.", "parameters": parameters}


FLIGHT = function(
    "flights.book",
    ["to", "seats"],
    to="string",
    seats="integer",
    price="float",
    legs={"type": "array", "items": {"type": "string"}},
    place={"type": "tuple", "items": {"type": "float"}},
    extra={"type": "dict", "properties": {"meal": {"type": "string"}, "bags": {"type": "integer"}}},
    note="any",
    direct="boolean",
)
RAIN = function("rain", ["where"], where="string", days="integer")
JAVA = function(
    "Store.put",
    ["key", "ids"],
    key="String",
    ids={"type": "ArrayList", "items": {"type": "long"}},
    opts="HashMap",
    handle="any",
    timeout="long",
    ratio="double",
    deep="boolean",
)
SCRIPT = function(
    "render", ["target", "data"], target="String", data="dict", points="array", live="Boolean", size="float"
)
TO_OSLO = {
    "flights.book": {
        "to": ["Oslo", "Oslo, Norway"],
        "seats": [2],
        "price": [99.5, ""],
        "legs": [["A-1", "B 2"], ""],
        "place": [[59.9, 10.7], ""],
        "extra": [{"meal": ["fish", "fish dish"], "bags": [1, ""]}, ""],
        "note": ["window", None, ""],
        "direct": [True, ""],
    }
}
ROWS: dict[str, list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]] = {
    "simple_python": [("Fly.", [FLIGHT], [TO_OSLO])],
    "multiple": [("Rain?", [FLIGHT, RAIN], [{"rain": {"where": ["Bergen"], "days": ["", 1]}}])],
    "parallel": [("Rain twice?", [RAIN], [{"rain": {"where": ["Bergen"]}}, {"rain": {"where": ["Oslo", "Bergen"]}}])],
    "parallel_multiple": [("Both.", [FLIGHT, RAIN], [TO_OSLO, {"rain": {"where": ["Oslo"], "days": [3]}}])],
    "live_simple": [("Rain.", [RAIN], [{"rain": {"where": ["Ås"], "days": [""]}}])],
    "irrelevance": [("Sing.", [RAIN], [])],
    "live_relevance": [("Is it wet?", [RAIN], [])],
    "simple_java": [
        (
            "Put.",
            [JAVA],
            [
                {
                    "Store.put": {
                        "key": ["a key"],
                        "ids": [[101, 202]],
                        "opts": [{"limit": [50], "mode": ["fast"]}],
                        "handle": ["handler"],
                        "timeout": [5],
                        "ratio": [0.5],
                        "deep": [True],
                    }
                }
            ],
        )
    ],
    "simple_javascript": [
        (
            "Render.",
            [SCRIPT],
            [
                {
                    "render": {
                        "target": ["app"],
                        "data": [{"state": ["initial"], "hooks": [["a", "b"]]}],
                        "points": [[1.5, 2]],
                        "live": [False],
                        "size": [3.0],
                    }
                }
            ],
        )
    ],
}


def write_files(folder: Path) -> Path:
    (folder / "possible_answer").mkdir(parents=True)
    for category, rows in ROWS.items():
        questions, answers = [], []
        for number, (text, functions, truth) in enumerate(rows):
            name = f"{category}_{number}"
            message = [[{"role": "user", "content": text}]]
            questions.append(json.dumps({"id": name, "question": message, "function": functions}))
            answers.append(json.dumps({"id": name, "ground_truth": truth}))
        (folder / f"BFCL_v4_{category}.json").write_text("\n".join(questions) + "\n")
        if rows[0][2]:
            (folder / "possible_answer" / f"BFCL_v4_{category}.json").write_text("\n".join(answers) + "\n")
    (folder / "BFCL_v4_multi_turn_base.json").write_text("{}\n")
    (folder / "README.md").write_text("words\n")
    return folder


@pytest.fixture(params=["own", "real"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> bfcl.Found:
    if request.param == "own":
        return bfcl.read(str(write_files(tmp_path / "files")))
    if not (source := os.environ.get("TOOLKIT_BFCL")):
        pytest.skip("TOOLKIT_BFCL names no folder or wheel of bfcl-eval")
    return bfcl.read(source)


def source_of(value: Any, language: literals.Language) -> str:
    """A value as a Java or JavaScript literal."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    inner = [source_of(one, language) for one in value] if isinstance(value, list) else []
    pairs = value.items() if isinstance(value, dict) else ()
    if language == "java":
        if isinstance(value, list):
            return f"new ArrayList<>(Arrays.asList({', '.join(inner)}))" if inner else "new ArrayList<>()"
        if isinstance(value, dict):
            puts = " ".join(f"put({json.dumps(key)}, {source_of(one, language)});" for key, one in pairs)
            return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(inner)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {source_of(one, language)}" for key, one in pairs) + "}"
    return str(value)


def gold(chat: Chat) -> list[ToolCall]:
    """Right calls as a model would write them."""
    calls = []
    for about, call in zip(chat.meta["bfcl"], chat.turns[-1].tool_calls, strict=True):
        arguments = call.arguments
        if language := about["language"]:
            arguments = {
                key: value if isinstance(value, str) else source_of(value, language) for key, value in arguments.items()
            }
        calls.append(replace(call, arguments=arguments))
    return calls


def spoilt(chat: Chat) -> Iterator[tuple[str, list[ToolCall]]]:
    """Wrong calls, each with what is wrong."""
    calls = gold(chat)
    yield "a call is missing", calls[:-1]
    yield "a call too many", [*calls, calls[0]]
    first, rest = calls[0], calls[1:]
    yield "another tool", [replace(first, name=f"{first.name}x"), *rest]
    yield "an unknown argument", [replace(first, arguments={**first.arguments, "zzz": 1}), *rest]
    for key, value in first.arguments.items():
        others = {name: one for name, one in first.arguments.items() if name != key}
        yield f"{key} is missing", [replace(first, arguments=others), *rest]
        yield f"{key} is another text", [replace(first, arguments={**others, key: "qqxyzzy"}), *rest]
        if isinstance(value, bool | int | float):
            wrong = not value if isinstance(value, bool) else value + 17
            yield f"{key} is another value", [replace(first, arguments={**others, key: wrong}), *rest]
        if isinstance(value, list) and value:
            yield f"{key} lacks an item", [replace(first, arguments={**others, key: value[:-1]}), *rest]
        if isinstance(value, dict):
            yield f"{key} has another key", [replace(first, arguments={**others, key: {**value, "zz": 1}}), *rest]


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
    assert judged(chat, [call]).correct is right


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
    assert judged(chat, [replace(call, arguments={**call.arguments, **change})]).correct is right


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


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        ("42", "java", 42),
        ("-7L", "java", -7),
        ("1.5f", "java", 1.5),
        ("2d", "java", 2.0),
        ("1_000", "java", 1000),
        ("true", "java", True),
        ("trueish", "java", "trueish"),
        ("null", "java", None),
        ('"a \\"b\\""', "java", 'a "b"'),
        ("'c'", "java", "c"),
        ("new int[]{1, 2}", "java", [1, 2]),
        ("new int[][]{{1}, {2, 3}}", "java", [[1], [2, 3]]),
        ("new String[] { }", "java", []),
        ('new ArrayList<>(Arrays.asList("a", 1, true))', "java", ["a", 1, True]),
        ("new ArrayList<Integer>()", "java", []),
        ('new HashMap<String, Integer>() {{ put("a", 1); put("b", 2); }}', "java", {"a": 1, "b": 2}),
        ("new HashMap<>()", "java", {}),
        ("Arrays.asList(x, f(1, 2))", "java", ["x", "f(1, 2)"]),
        ("someVariable", "java", "someVariable"),
        ("new Thing(1)", "java", "new Thing(1)"),
        ("3 apples", "java", "3 apples"),
        ("12n", "javascript", 12),
        ("[1, 'two', [true]]", "javascript", [1, "two", [True]]),
        ("[1, 2,]", "javascript", [1, 2]),
        ("{a: 1, 'b-c': {d: undefined}}", "javascript", {"a": 1, "b-c": {"d": None}}),
        ("{a}", "javascript", {"a": "a"}),
        ("{on: () => go(1, 2)}", "javascript", {"on": "() => go(1, 2)"}),
        ("new Map([['k', 1]])", "javascript", {"k": 1}),
        ("`it's`", "javascript", "it's"),
        ("[1, 2", "javascript", "[1, 2"),
        ("", "javascript", ""),
        ("[" * 100_000, "javascript", "[" * 100_000),
    ],
)
def test_literals(text: str, language: literals.Language, value: Any) -> None:
    assert literals.read(text, language) == value
    assert type(literals.read(text, language)) is type(value)
