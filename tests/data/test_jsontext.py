"""JSON as its standard has it, and the Python literals in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.jsontext import literal, loads, refuse_deep
from toolkit.data.notes import RowError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_json_reads_as_it_was_written(value: Any, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    assert loads(text) == value
    assert literal(text, "x") == value


@given(JSON)
def test_python_literals_read_as_python_means_them(value: Any) -> None:
    assert literal(repr(value), "x") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "1e999 is beyond all numbers"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key b stands twice in one object"),
        ('{"a": ["x", "cut \\ud83d"]}', r"x\.a\[1\]: a lone surrogate \\ud83d"),
        ('{"a\\udc00": 1}', "a key of x: a lone surrogate"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5001, "more than 4,300 digits"),
        ('{"say": "say "hi""}', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_what_other_readers_refuse_is_refused(text: str, reason: str) -> None:
    for read in (loads, literal):
        with pytest.raises(RowError, match=reason):
            read(text, "x")


def test_where_json_ends_too_soon_is_said_once() -> None:
    with pytest.raises(RowError, match=r"^x: not JSON: Unterminated string starting at character 2$"):
        loads('["half', "x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{'a': {1, 2}}", "a set, which JSON can't say"),
        ("{'a': 2j}", "bytes, a complex number or the like"),
        ("{'a': 1 + 2j}", "an expression"),
        ("{'a': b'x'}", "bytes, a complex number"),
        ("{1: 2}", "a key that is no text"),
        ("{(1, 2): 3}", "a key that is no text"),
        ("{None: 3}", "a key that is no text"),
        ("{'a': nan}", "a name without quotes"),
        ("{'a': 1e999}", "a complex number or the like"),
        ("{'text': 'it''s'}", "two strings side by side"),
        ("{'a': 1, 'a': 2}", "stands twice"),
        ("{**{'a': 1}}", "a key that is no text"),
        ("f'{x}'", "an expression"),
        ("{'a': '\\ud83d'}", "lone surrogate"),
        ("__import__('os')", "an expression"),
        ("{'a': 9" + "9" * 5000 + "}", "not JSON"),
        ("(" * 300, "not JSON"),
        ("not " * 100_000 + "1", "not JSON"),
        ("\0", "not JSON"),
    ],
)
def test_of_python_only_what_json_can_say(text: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        literal(text, "x")


def test_other_spellings_that_mean_json() -> None:
    assert literal("{'a': true, 'b': (1, -2.5), 'c': None, 'd': null}", "x") == {
        "a": True,
        "b": [1, -2.5],
        "c": None,
        "d": None,
    }
    assert loads('"\\ud83d\\ude42"') == "🙂", "two halves are a character"


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> str:
        return "[" * levels + "]" * levels

    refuse_deep(json.loads(nested(100)), nested(100), "x")
    refuse_deep([[]] * 200, "[]" * 200, "x")
    with pytest.raises(RowError, match="x: nested more than 100 levels deep"):
        refuse_deep(json.loads(nested(101)), nested(101), "x")
