"""TOML as recipes use it: `tomllib`, with an end to digits and depth.

Python refuses integers of more than 4,300 digits and recursions of more than a thousand calls with errors that say
nothing of the text; here they are mistakes of the text as any other.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

MOST_LEVELS = 32  # of tables and lists within each other; a recipe has 4
_DIGITS = re.compile(r"(?:[0-9]_?){4300}")


def loads(text: str) -> dict[str, Any]:
    """The values of a TOML text. Raises `tomllib.TOMLDecodeError`, whose message ends in ` (at line 1, column 2)`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _error("Nested too deep", text, _deepest(text)) from None
    except ValueError:
        found = _DIGITS.search(text)
        raise _error("A number of more than 4,300 digits", text, found.start() if found else 0) from None
    if _deep(values):
        raise _error(f"Nested more than {MOST_LEVELS} levels deep", text, _deepest(text))
    return values


def _deep(values: Any) -> bool:
    """Whether something lies below the last level, without a recursion of ours."""
    level = [values]
    for _ in range(MOST_LEVELS):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [value for values in inner for value in values]
    return any(isinstance(one, (dict, list)) for one in level)


def _deepest(text: str) -> int:
    """Where the line with the most marks of nesting begins to have them."""
    lines = text.split("\n")
    worst = max(range(len(lines)), key=lambda index: sum(map(lines[index].count, "[{.")))
    return sum(len(line) + 1 for line in lines[:worst]) + max(
        0, min(map(lines[worst].find, "[{"), key=lambda at: at < 0)
    )


def _error(message: str, text: str, at: int) -> tomllib.TOMLDecodeError:
    line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
    return tomllib.TOMLDecodeError(f"{message} (at line {line}, column {column})")
