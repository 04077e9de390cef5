"""JSON of files that others may have written: `json`, with an end to depth.

Python's own gives up on deep nesting with an error that is none of JSON's, and what it does read can be too deep to be
written again; here both are mistakes of the text as any other.
"""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100  # of lists and objects within each other; what the toolkit writes has a dozen
TOO_DEEP = f"nested more than {DEEPEST} levels deep"


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError`, as `json.loads`, and for what is nested too deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if is_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def is_deep(value: Any) -> bool:
    """Whether `value` has more than `DEEPEST` lists and objects within each other."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
