"""Rows of every format with something odd put into them: each is a chat that can be used, or a bad row with its place.

`TOOLKIT_FUZZ=5000 pytest tests/data/test_fuzzed_rows.py` tries more.
"""

from __future__ import annotations

import copy
import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.test_formats import HERMES_SYSTEM, ROWS
from tests.data.test_glaive import CALL, SYSTEM, talk
from tests.data.test_toolace import SYSTEM as TOOLACE_SYSTEM
from tests.data.toys import ADD, QWEN_LIKE, WEATHER, tokenizer, weather_row
from toolkit.chats import Chat
from toolkit.data.notes import Reading
from toolkit.data.parts import chat_hash
from toolkit.data.render import Renderer
from toolkit.data.sources import load_chats
from toolkit.data.violations import violations
from toolkit.errors import DataError
from toolkit.recipe.schema import ColumnsSection, SourceSection

EXAMPLES = int(os.environ.get("TOOLKIT_FUZZ", "60"))
RENDERER = Renderer.of(tokenizer(QWEN_LIKE))
BASES: list[dict[str, Any]] = [
    *ROWS.values(),
    {"instruction": "Add.", "input": "2 2", "output": "4", "history": [["Hi", "Hello"]], "system": "Sum."},
    {
        "query": "Weather?",
        "tools": json.dumps(
            [{"name": "f", "description": "", "parameters": {"a": {"type": "List[int]", "default": 1}}}]
        ),
        "answers": json.dumps([{"name": "f", "arguments": {"a": [1]}}]),
    },
    {"system": SYSTEM, "chat": talk(f"Yes. {CALL}", "Bye. <|endoftext|>")},
    {
        "system": TOOLACE_SYSTEM,
        "conversations": [
            {"from": "user", "value": "?"},
            {"from": "assistant", "value": '[get_weather(city="Oslo", days=2), Market Trends API(country="us")]'},
            {"from": "tool", "value": '[{"name": "get_weather", "results": 1}, {"name": "x", "results": {}}]'},
            {"from": "assistant", "value": "So."},
        ],
    },
    {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "So."},
                    {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}},
                ],
                "weight": 1,
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]},
            {"role": "assistant", "content": "Rain.", "reasoning": "x"},
        ],
        "tools": [WEATHER, ADD],
    },
]


def nested(levels: int, key: str | None) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {key: value} if key else [value]
    return value


ODD = st.one_of(
    st.sampled_from(
        [
            *(
                None,
                True,
                0,
                -1,
                5,
                0.5,
                float("nan"),
                float("inf"),
                1e308,
                10**400,
                "",
                " ",
                "\0",
                "\x1b[2J",
                "\ud83d",
            ),
            *(
                "</think>",
                "<think>",
                "<tool_call>{",
                "<tools>[",
                "<|im_end|>",
                "[f(",
                "'",
                '"',
                "\\",
                "{",
                "[]",
                "null",
            ),
            *(
                [],
                {},
                [[]],
                [None],
                {"": None},
                {"type": 5},
                {"$ref": "#"},
                {"$ref": "http://127.0.0.1:9/"},
                {"a": {"b": 1}},
            ),
            *(
                {"type": "object", "properties": 5},
                {"required": 5},
                {"pattern": "(a+)+$"},
                {"multipleOf": 0},
                {"enum": 3},
            ),
            *("<tool_call>{'name': 'get_weather', 'arguments': {'city': {1}}}</tool_call>", HERMES_SYSTEM, CALL),
            *('{"name": "get_weather", "arguments": "{\\"city\\": NaN}"}', '{"a": 1, "a": 2}', "9" * 5001),
            *(nested(150, "items"), nested(150, None), nested(150, "properties"), "List[" * 50 + "]" * 50, "[" * 3000),
            *("function_call", "observation", "system", "developer", "ipython", "messages", WEATHER, [WEATHER, ADD]),
        ]
    ),
    st.text(max_size=8),
    st.integers(),
    st.lists(st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    [
        *(
            "role",
            "content",
            "tool_calls",
            "function_call",
            "weight",
            "loss",
            "train_detail",
            "reasoning",
            "thinking",
            "tools",
        ),
        *(
            "name",
            "arguments",
            "args",
            "input",
            "parameters",
            "inputSchema",
            "function",
            "tool_call_id",
            "id",
            "type",
            "system",
        ),
        *(
            "messages",
            "conversations",
            "prompt",
            "completion",
            "from",
            "value",
            "properties",
            "required",
            "items",
            "anyOf",
        ),
    ]
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def put(row: Any, place: tuple[Any, ...], change: str, key: str, odd: Any) -> Any:
    """The row with something odd at a place: in its stead, under another key, in JSON text, or without it."""
    if not place:
        return odd if change == "replace" else {**row, key: odd} if isinstance(row, dict) else row
    holder = row
    for step in place[:-1]:
        holder = holder[step]
    last = place[-1]
    if change == "replace":
        holder[last] = odd
    elif change == "drop":
        del holder[last]
    elif change == "text":
        try:
            holder[last] = json.dumps(holder[last])
        except (ValueError, RecursionError):
            holder[last] = odd
    elif isinstance(holder, dict):
        holder[key] = odd
    else:
        holder.insert(last, odd)
    return row


@st.composite
def rows(draw: st.DrawFn) -> Any:
    row = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(row)))
        change = draw(st.sampled_from(["replace", "replace", "add", "drop", "text"]))
        row = put(row, place, change, draw(KEYS), copy.deepcopy(draw(ODD)))
    return row


def read(path: Path, **options: Any) -> tuple[list[Chat], Reading]:
    reading = Reading()
    return list(load_chats([SourceSection(source=str(path), **options)], reading)), reading


def usable(chats: list[Chat]) -> None:
    """Whatever is read is JSON, can be hashed and checked, and is rendered or refused with its place."""
    for chat in chats:
        for value in (*chat.tools, *(call.arguments for turn in chat.turns for call in turn.tool_calls)):
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        for turn in chat.turns:
            turn.content.encode()
        chat_hash(chat)
        violations(chat)
        try:
            for row in RENDERER.rows(chat):
                RENDERER.encode(row)
        except DataError as error:
            assert all(problem.where == chat.where for problem in error.problems)


odd_rows = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@odd_rows
@given(rows())
def test_a_row_is_read_or_refused_with_its_place(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "x.jsonl"
    good = json.dumps(weather_row())
    path.write_text(f"{good}\n{json.dumps(row)}\n{good}\n")
    chats, reading = read(path)
    assert len(chats) + reading.bad == reading.rows == 3
    assert [chat.where for chat in chats if not chat.where.endswith(":2")] == [f"{path}:1", f"{path}:3"]
    for problem in reading.by_cause():
        assert problem.where == f"{path}:2" and "\n" not in problem.message and "\x1b" not in problem.message
        assert len(problem.message) < 1500
    usable(chats)


@odd_rows
@given(st.lists(rows(), max_size=3), st.booleans())
def test_files_of_other_kinds_too(tmp_path: Path, found: list[Any], as_json: bool) -> None:
    path = tmp_path / ("x.json" if as_json else "x.csv")
    if as_json:
        path.write_text(json.dumps([weather_row(), *found, weather_row()]))
    else:
        keys = sorted({key for row in found if isinstance(row, dict) for key in row} | {"messages", "tools"})
        with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerow(keys)
            for row in [weather_row(), *found]:
                writer.writerow(
                    [json.dumps(row[key]) if key in row else "" for key in keys] if isinstance(row, dict) else [1]
                )
    try:
        chats, _ = read(path)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        usable(chats)


@odd_rows
@given(
    rows(),
    st.sampled_from(["messages", "sharegpt", "alpaca", "prompt_completion", "xlam", "hermes", "glaive", "toolace"]),
)
def test_a_format_that_is_set_is_no_traceback(tmp_path: Path, row: Any, format: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    usable(read(path, format=format)[0])
    columns = ColumnsSection(messages="messages", tools="tools", system="prompt")
    usable(read(path, columns=columns)[0])
    usable(read(path, columns=ColumnsSection(user="query", assistant="system"))[0])


@odd_rows
@given(st.binary(max_size=40), st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.parquet", "x.jsonl.gz", "x.json.zst"]))
def test_bytes_of_any_sort_are_no_traceback(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        usable(read(path)[0])
    except DataError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize("base", BASES)
def test_the_rows_are_good_before_anything_is_put_into_them(tmp_path: Path, base: dict[str, Any]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(base))
    chats, reading = read(path)
    assert len(chats) == 1 and not reading.bad
    usable(chats)
