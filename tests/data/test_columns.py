"""Columns with names of their own, mapped in the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.toys import WEATHER, weather_row, write_jsonl
from toolkit.chats import Chat
from toolkit.data.keys import data_key
from toolkit.data.notes import Reading
from toolkit.data.sources import load_chats
from toolkit.errors import DataError, RecipeError
from toolkit.recipe import load
from toolkit.recipe.dump import dump
from toolkit.recipe.schema import ColumnsSection, Recipe, SourceSection


def source(path: Path, **columns: str) -> SourceSection:
    return SourceSection(source=str(path), columns=ColumnsSection(**columns))


def read(path: Path, **columns: str) -> tuple[list[Chat], Reading]:
    reading = Reading()
    return list(load_chats([source(path, **columns)], reading)), reading


def texts(chat: Chat) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in chat.turns]


def test_a_question_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("question,answer,about,id\n2+2?,4,Be brief.,1\n3+3?,6,,2\n")
    chats, reading = read(path, user="question", assistant="answer", system="about")
    assert [texts(chat) for chat in chats] == [
        [("system", "Be brief."), ("user", "2+2?"), ("assistant", "4")],
        [("user", "3+3?"), ("assistant", "6")],
    ]
    assert chats[0].meta == {"format": "columns"}
    assert [str(found) for found in reading.in_order()] == [f"{path}:2: rows: key id is not used [2 rows]"]


def test_messages_and_tools_of_other_names(tmp_path: Path) -> None:
    row = weather_row()
    mine = {"dialog": row["messages"], "functions_": json.dumps(row["tools"])}
    chats, reading = read(write_jsonl(tmp_path / "x.jsonl", [mine]), messages="dialog", tools="functions_")
    plain, _ = read(write_jsonl(tmp_path / "y.jsonl", [row]))
    assert (chats[0].turns, chats[0].tools) == (plain[0].turns, plain[0].tools) and not reading.findings
    said = {"chat": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}], "about": "Be brief."}
    chats, _ = read(write_jsonl(tmp_path / "z.jsonl", [said]), messages="chat", system="about")
    assert texts(chats[0]) == [("system", "Be brief."), ("user", "?"), ("assistant", "!")]


def test_tools_beside_a_question(tmp_path: Path) -> None:
    rows = [{"q": "Weather?", "a": "Which city?", "t": [WEATHER]}, {"q": "Hi", "a": "Hello"}]
    chats, _ = read(write_jsonl(tmp_path / "x.jsonl", rows), user="q", assistant="a", tools="t")
    assert [chat.tools for chat in chats] == [(WEATHER,), ()]


def test_a_column_of_a_readers_name_that_is_not_named_is_not_used(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "!", "system": "Be evil.", "user": "id-17", "messages": []}]
    chats, reading = read(write_jsonl(tmp_path / "x.jsonl", rows), user="question", assistant="answer")
    assert texts(chats[0]) == [("user", "?"), ("assistant", "!")]
    assert sorted(found.text for found in reading.in_order()) == [
        "rows: key messages (another column) is not used",
        "rows: key system (another column) is not used",
        "rows: key user (another column) is not used",
    ]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    table.write_text("question,answer\n?,!\n?,!\n")
    with pytest.raises(DataError) as caught:
        read(table, user="qestion", assistant="answer")
    assert str(caught.value) == (
        f"{table}: no column qestion (data.sources.columns.user), did you mean question?; found answer, question"
    )
    rows = [{"question": "?", "answer": "!"}, {"Question": "?", "answer": "!"}]
    chats, reading = read(write_jsonl(tmp_path / "x.jsonl", rows), user="question", assistant="answer")
    assert len(chats) == 1 and reading.bad == 1
    (problem,) = reading.by_cause()
    assert problem.where.endswith("x.jsonl:2") and "no column question" in problem.message
    assert "did you mean Question?" in problem.message


@pytest.mark.parametrize("row", [{"q": 5, "a": "!"}, {"q": "?", "a": {"text": "!"}}, {"q": "?", "a": ""}, [1]])
def test_cells_that_are_no_text_are_bad_rows(tmp_path: Path, row: Any) -> None:
    chats, reading = read(write_jsonl(tmp_path / "x.jsonl", [row]), user="q", assistant="a")
    assert not chats and reading.bad == 1


def test_the_token_table_knows_the_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"a": "1", "b": "2"}])
    keys = {
        data_key([source(path, **columns)])
        for columns in ({"user": "a", "assistant": "b"}, {"user": "b", "assistant": "a"}, {})
    }
    assert len(keys) == 3


def test_the_recipe_s_own_checks(tmp_path: Path) -> None:
    recipe = tmp_path / "x.toml"

    def problems(line: str, *more: str) -> list[str]:
        recipe.write_text("\n".join(["[[data.sources]]", 'source = "x.csv"', f"columns = {line}", *more]))
        try:
            loaded = load(recipe)
        except RecipeError as error:
            return [problem.message for problem in error.problems]
        again = tmp_path / "again.toml"
        again.write_text(dump(loaded.recipe))
        assert load(again).recipe == loaded.recipe
        return []

    assert problems('{ user = "question", assistant = "answer" }') == []
    assert problems('{ messages = "dialog", tools = "functions" }', 'format = "sharegpt"') == []
    assert problems("{}") == []
    (unknown,) = problems('{ user = "a", asistant = "b" }')[:1]
    assert unknown == "data.sources.0.columns.asistant: unknown key, did you mean assistant?"
    assert problems('{ user = "a" }') == [
        'data.sources.0.columns: found user; wanted messages = "...", or user = "..." and assistant = "..."'
    ]
    assert "given beside user or assistant" in problems('{ user = "a", assistant = "b", messages = "c" }')[0]
    assert 'found 5, wanted text that is not empty, write "5" in quotes' in problems("{ user = 5 }")[0]
    assert "wanted a table" in problems('"question"')[0]
    assert "has its own columns" in problems('{ user = "a", assistant = "b" }', 'format = "alpaca"')[0]
    recipe.write_text('[[data.sources]]\nsource = "builtin:tools"\ncolumns = { user = "a", assistant = "b" }')
    with pytest.raises(RecipeError, match=r'"builtin:tools" has no columns'):
        load(recipe)


def test_an_old_recipe_says_nothing_of_columns() -> None:
    assert "columns = {}" in dump(Recipe()) and "max_bad = 0.0" in dump(Recipe())
