"""Columns of names of their own, and splits within a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.drafting.drafts import rows, write
from toolkit.drafting.draft import draft
from toolkit.engines.recipes import load
from toolkit.errors import DataError, InputError


def test_splits_within_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    path.write_text(json.dumps({"train": rows("messages", 3), "Test": rows("messages", 2)}))
    with pytest.raises(DataError, match=r"both\.json:1: splits within one file: train, Test; wanted a file for each"):
        list(draft(path))
    path.write_text(json.dumps({"train": rows("messages", 3), "test": []}))
    assert "3 chats (messages)" in next(draft(path))


def test_columns_that_training_never_sees_are_named(tmp_path: Path) -> None:
    """As Dolly's context, beside an instruction and its response."""
    path = tmp_path / "dolly.jsonl"
    row = {"instruction": "Who wrote it?", "context": "A letter by Ada.", "response": "Ada.", "category": "qa"}
    write(path, [row] * 20)
    told = list(draft(path, columns="user=instruction,assistant=response"))
    assert "not used   context (20 rows), category (20 rows): training sees nothing of these columns" in told
    assert not any(line.startswith("not used") for line in draft(write(tmp_path / "x.jsonl", rows("messages", 3))))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("Question,Answer,id", "user=Question,assistant=Answer"),
        ("prompt,response,id", "user=prompt,assistant=response"),
        ("chosen,rejected,prompt", "user=prompt,assistant=chosen"),
        ("this,that,id", "user=question,assistant=answer"),
        ('"query","answer, short",answer', "user=query,assistant=answer"),
    ],
)
def test_columns_that_are_named_as_such_often_are(tmp_path: Path, header: str, told: str) -> None:
    (tmp_path / "faq.csv").write_text(f"{header}\nHi,Yo,1\nHow?,So.,2\n")
    with pytest.raises(DataError, match=f"--columns {re.escape(told)} says here which column is what"):
        list(draft(tmp_path / "faq.csv"))


def test_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,reply,id\nHi,Yo,1\nHow?,So.,2\n")
    with pytest.raises(DataError, match=r"--columns user=question,assistant=reply says here which column is what"):
        list(draft(tmp_path / "faq.csv"))
    lines = list(draft(tmp_path / "faq.csv", columns="user=question, assistant=reply"))
    assert "2 chats (columns)" in lines[0]
    (source,) = load(tmp_path / "faq.toml").recipe.data.sources
    assert source.columns.model_dump(exclude_none=True) == {"user": "question", "assistant": "reply"}
    with pytest.raises(DataError, match=r"no column answer .*; found id, question, reply$"):
        list(draft(tmp_path / "faq.csv", None, tmp_path / "x.toml", "user=question,assistant=answer"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            "user=question,asistant=reply",
            "asistant=reply: wanted user=question,assistant=answer, did you",
        ),
        ("user=question,user=reply", ": user is there twice, wanted it once, as user=question,assistant=answer"),
        ("foo", ": foo: wanted user=question,assistant=answer (known: "),
        ("usr=question,assistant=reply", "usr=question: wanted user=question,assistant=answer, did you mean user?"),
        ("user=", "user=: wanted user=question,assistant=answer"),
        (",", "nothing: wanted user=question,assistant=answer"),
        ("user=question", "wanted user and assistant, as user=question,assistant=answer, or messages alone"),
        ("messages=a,user=b", "or messages alone"),
        ("tools=a", "or messages alone"),
    ],
)
def test_columns_that_say_nothing(tmp_path: Path, columns: str, said: str) -> None:
    path = write(tmp_path / "chats.jsonl", rows("messages", 20))
    with pytest.raises(InputError) as error:
        list(draft(path, columns=columns))
    assert str(error.value).startswith(f"--columns {columns}: ") and said in str(error.value)


def test_a_row_with_lists_named_as_splits_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    row = {"prompt": "Hi", "completion": "Hello.", "train": [{"a": 1}], "test": [{"a": 2}]}
    path.write_text(json.dumps(row))
    assert "1 chat (prompt_completion)" in next(draft(path))
