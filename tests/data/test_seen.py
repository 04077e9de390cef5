"""The tools of a run's chats: counted over chunks, bounded, written with the table, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import ADD, write_recipe
from toolkit.chats import Chat
from toolkit.data import seen, table
from toolkit.data.seen import ToolTally, read_seen
from toolkit.recipe import load


def tool(name: str, **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "description": "", "parameters": {}, **more}}


def chats(*names: str) -> list[Chat]:
    """A chat a word; each letter of it is a tool."""
    return [Chat((), tuple(tool(letter) for letter in name)) for name in names]


def test_tools_are_counted_by_chats_over_chunks() -> None:
    tally, other = ToolTally(), ToolTally()
    tally.add_chats(chats("ab", "b", "bb"))
    other.add_chats(chats("cb"))
    tally.add(other)
    told = tally.as_dict()
    assert [(one["function"]["name"], one["chats"]) for one in told["tools"]] == [("b", 4), ("a", 1), ("c", 1)]
    assert (told["distinct"], told["cut"]) == (3, False)


def test_one_name_with_two_schemas_is_two_tools() -> None:
    tally = ToolTally()
    tally.add_chats([Chat((), (tool("a"),)), Chat((), (tool("a", description="Other."),))])
    assert tally.as_dict()["distinct"] == 2


def test_many_and_large_tools_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "COUNTED", 30)
    monkeypatch.setattr(seen, "KEPT", 20)
    tally = ToolTally()
    tally.add_chats([Chat((), (tool("large", description="x" * seen.LONGEST),)) for _ in range(3)])
    tally.add_chats([Chat((), (tool(f"tool{number}"),)) for number in range(100)])
    told = tally.as_dict()
    assert (told["distinct"], told["cut"], len(told["tools"])) == (30, True, 20)
    assert "large" not in json.dumps(told)


def test_a_table_has_the_tools_of_its_chats(tiny_model: Path, tmp_path: Path, cache: Path) -> None:
    recipe = load(write_recipe(tmp_path, tiny_model, 12)).recipe
    made = table.build(recipe, tiny_model, "train", progress=False)
    found = read_seen(made.folder)
    assert found is not None and found.schemas == (ADD,) and found.distinct == 1
    told = json.loads((made.folder / seen.FILE).read_text())
    assert told["tools"][0]["chats"] == made.n_chats


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tools": 3}', '{"tools": [{"function": {}}]}', "[" * 5000])
def test_what_can_not_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    assert read_seen(tmp_path) is None
    (tmp_path / seen.FILE).write_text(text)
    assert read_seen(tmp_path) is None
