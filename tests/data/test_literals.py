"""Values as Java and JavaScript write them."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.data import literals


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        ("42", "java", 42),
        ("-7L", "java", -7),
        ("1.5f", "java", 1.5),
        ("2d", "java", 2.0),
        ("1_000", "java", 1000),
        ("true", "java", True),
        ("trueish", "java", "trueish"),
        ("null", "java", None),
        ('"a \\"b\\""', "java", 'a "b"'),
        ("'c'", "java", "c"),
        ("new int[]{1, 2}", "java", [1, 2]),
        ("new int[][]{{1}, {2, 3}}", "java", [[1], [2, 3]]),
        ("new String[] { }", "java", []),
        ('new ArrayList<>(Arrays.asList("a", 1, true))', "java", ["a", 1, True]),
        ("new ArrayList<Integer>()", "java", []),
        ('new HashMap<String, Integer>() {{ put("a", 1); put("b", 2); }}', "java", {"a": 1, "b": 2}),
        ("new HashMap<>()", "java", {}),
        ("Arrays.asList(x, f(1, 2))", "java", ["x", "f(1, 2)"]),
        ("someVariable", "java", "someVariable"),
        ("new Thing(1)", "java", "new Thing(1)"),
        ("3 apples", "java", "3 apples"),
        ("12n", "javascript", 12),
        ("[1, 'two', [true]]", "javascript", [1, "two", [True]]),
        ("[1, 2,]", "javascript", [1, 2]),
        ("{a: 1, 'b-c': {d: undefined}}", "javascript", {"a": 1, "b-c": {"d": None}}),
        ("{a}", "javascript", {"a": "a"}),
        ("{on: () => go(1, 2)}", "javascript", {"on": "() => go(1, 2)"}),
        ("new Map([['k', 1]])", "javascript", {"k": 1}),
        ("`it's`", "javascript", "it's"),
        ("[1, 2", "javascript", "[1, 2"),
        ("", "javascript", ""),
        ("[" * 100_000, "javascript", "[" * 100_000),
    ],
)
def test_literals(text: str, language: literals.Language, value: Any) -> None:
    assert literals.read(text, language) == value
    assert type(literals.read(text, language)) is type(value)
