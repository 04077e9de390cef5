"""Rows whose columns have names of their own: the recipe's `columns` say which is which."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.notes import RowError, shown
from toolkit.errors import did_you_mean

if TYPE_CHECKING:
    from toolkit.recipe.schema import ColumnsSection

# What a column stands for, under the names that the readers know.
_KEYS = {"system": "system", "user": "user", "assistant": "assistant", "messages": "messages", "tools": "tools"}
_OPTIONAL = ("system", "tools")  # not every row has them
QUESTIONS = ("prompt", "question", "instruction", "input", "query", "user")  # as data sets call them, likeliest first
_ANSWERS = ("completion", "answer", "response", "output", "reply", "assistant")


def chosen(columns: ColumnsSection) -> dict[str, str]:
    """The columns that a recipe names, by what they stand for."""
    return {name: column for name in _KEYS if (column := getattr(columns, name)) is not None}


def renamed(row: Any, columns: dict[str, str]) -> Any:
    """The row with the named columns under the readers' names; all others keep theirs, so that they are remarked on.

    Raises `RowError` for a column that is not there.
    """
    if not isinstance(row, dict):
        return row
    taken = set(columns.values())
    result = {key: value for key, value in row.items() if key not in taken and key not in _KEYS.values()}
    result |= {f"{key} (another column)": row[key] for key in _KEYS.values() if key in row and key not in taken}
    for name, column in columns.items():
        if column in row:
            result[_KEYS[name]] = row[column]
        elif name not in _OPTIONAL or len(row) == 0:
            raise missing(column, name, row)
    return result


def likely(row: dict[str, Any]) -> str:
    """A recipe's `columns` for a row of no known format, by the names of its texts; without a question and an answer
    nothing."""
    texts = {str(key).lower(): key for key, value in row.items() if isinstance(value, str)}
    user, assistant = (next((texts[n] for n in names if n in texts), None) for names in (QUESTIONS, _ANSWERS))
    return f"{{ user = {_toml(user)}, assistant = {_toml(assistant)} }}" if user and assistant else ""


def _toml(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def missing(column: str, name: str, row: dict[str, Any]) -> RowError:
    """What to say of a column that a row does not have."""
    near = did_you_mean(column, map(str, row))
    found = ", ".join(sorted(map(shown, row))) or "nothing"
    return RowError(
        f"no column {shown(column)} (data.sources.columns.{name}){near}; found {found}",
        cause=f"no column {shown(column)}",
    )


def format_of(columns: dict[str, str]) -> Literal["auto", "columns"]:
    """How a renamed row is read: by its messages, or as one question and its answer."""
    return "auto" if "messages" in columns else "columns"
