"""JSON of others: what is nested too deep is a mistake of the text."""

from __future__ import annotations

import pytest

from toolkit import jsons


def nested(levels: int, inner: str = "1") -> str:
    return '[{"a":' * (levels // 2) + inner + "}]" * (levels // 2)


def test_what_is_read() -> None:
    assert jsons.loads('{"a": [1, null]}') == jsons.loads(b'{"a": [1, null]}') == {"a": [1, None]}
    assert str(jsons.loads(nested(jsons.DEEPEST))).count("[") == jsons.DEEPEST // 2


@pytest.mark.parametrize("text", [nested(jsons.DEEPEST + 2), nested(jsons.DEEPEST, "[]"), "[" * 50_000, nested(900)])
def test_what_is_too_deep(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nested more than 100 levels deep$"):
        jsons.loads(text)
