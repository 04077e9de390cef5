"""The rows that docs/data-formats.md shows are read as it says, and it knows every format and finding."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from toolkit.data.formats import Format, convert
from toolkit.data.notes import Remarks
from toolkit.data.turns import ROLES
from toolkit.recipe.schema import ColumnsSection

PAGE = (Path(__file__).parents[2] / "docs" / "data-formats.md").read_text()


def test_the_rows_that_it_shows_are_read() -> None:
    blocks = re.findall(r"^    (\{.*(?:\n     .*)*)", PAGE, re.MULTILINE)
    whole = [json.loads(block) for block in blocks if "..." not in block]
    remarks = Remarks()
    chats = [convert(row, "auto", where="page:1", source="page", remarks=remarks) for row in whole]
    assert [chat.meta["format"] for chat in chats] == ["messages", "alpaca", "prompt_completion", "xlam"]
    assert remarks == {}
    assert chats[0].turns[1].tool_calls == chats[3].turns[1].tool_calls


def test_it_names_every_format_column_and_role() -> None:
    for name in (*get_args(Format), *ColumnsSection.model_fields, "max_bad"):
        assert f"`{name}`" in PAGE or f"{name} =" in PAGE or f"data.{name}" in PAGE, name
    unnamed = [role for role in ROLES if f"`{role}`" not in PAGE]
    assert unnamed == ["tool_results", "tool_output", "function_result"], "these are the page's dots"
