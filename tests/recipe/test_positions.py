"""The scanner must agree with tomllib on what keys a text has, and name the line that a reader would point at."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from toolkit.recipe.positions import positions


def paths(node: Any, at: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = {at} if at else set()
    for key, value in items:
        found |= paths(value, (*at, key))
    return found


BARE = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,6}"), fullmatch=True)
QUOTED = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=5)


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, str]:
    """(the key, how it is written)."""
    if draw(st.booleans()):
        bare = draw(BARE)
        return bare, bare
    text = draw(QUOTED)
    if "'" not in text and draw(st.booleans()):
        return text, f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text, f'"{escaped}"'


SCALARS = st.sampled_from(
    [
        *("1", "-2.5e3", "0x1f", "true", "inf", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "07:32:00"),
        *('"a # b ] } , ="', "'c:\\x'", '"\\" \\\\"', '""', "''"),
        *(
            '"""\nline [x]\n\\"""" "" end\\\\"""',
            "'''\nk = 1\n''quotes'''''",
            '""""""',
            '"""a""" # comment = [',
            '""""quoted"""""',
        ),
    ]
)
SPACE = st.sampled_from(["", " ", "\t", "  "])
GAP = st.sampled_from(["", " ", "\n", "\r\n", ' # note ] } = "\n', "\n\n# k = 1\n  "])


def values() -> st.SearchStrategy[str]:
    def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        @st.composite
        def array(draw: st.DrawFn) -> str:
            items = [draw(GAP) + draw(inner) + draw(GAP) for _ in range(draw(st.integers(0, 3)))]
            comma = draw(st.sampled_from(["", ","])) if items else ""
            return "[" + ",".join(items) + comma + draw(GAP) + "]"

        @st.composite
        def table(draw: st.DrawFn) -> str:
            parts, seen = [], set()
            for _ in range(draw(st.integers(0, 3))):
                key, written = draw(keys())
                if key not in seen:
                    seen.add(key)
                    parts.append(f"{draw(SPACE)}{written}{draw(SPACE)}={draw(SPACE)}{draw(inner)}{draw(SPACE)}")
            return "{" + ",".join(parts) + draw(SPACE) + "}"

        return st.one_of(array(), table())

    return st.recursive(SCALARS, arrays, max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Lines of pairs, dotted pairs, tables and arrays of tables; those that tomllib refuses are left out."""
    text = ""
    for _ in range(draw(st.integers(0, 12))):
        name = f"{draw(SPACE)}.{draw(SPACE)}".join(draw(keys())[1] for _ in range(draw(st.integers(1, 3))))
        kind = draw(st.sampled_from(["pair", "pair", "table", "array"]))
        if kind == "pair":
            line = f"{draw(SPACE)}{name}{draw(SPACE)}={draw(SPACE)}{draw(values())}"
        else:
            line = f"[[{name}]]" if kind == "array" else f"[{name}]"
        more = (
            text
            + draw(GAP)
            + ("\n" if text else "")
            + line
            + draw(SPACE)
            + draw(st.sampled_from(["\n", "\r\n", " # x\n"]))
        )
        try:
            tomllib.loads(more)
        except tomllib.TOMLDecodeError:
            continue
        text = more
    return text


@settings(max_examples=60)
@given(documents())
def test_same_keys_and_lines_that_hold_them(text: str) -> None:
    """The keys that tomllib finds, and each line has its key."""
    assert set(positions(text)) == paths(tomllib.loads(text))

    lines = text.split("\n")
    for path, line in positions(text).items():
        key = path[-1]
        if isinstance(key, str):
            shown = key.replace("\\", "\\\\").replace('"', '\\"')
            assert key in lines[line - 1] or shown in lines[line - 1]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a", "b", "c"), 1),
        (("text",), 2),
        (("after",), 5),
        (("list",), 6),
        (("list", 1), 8),
        (("data", "sources", 0), 10),
        (("data", "sources", 0, "kinds", "single"), 11),
        (("data", "sources", 1), 12),
        (("data", "sources", 1, "extra", "k"), 14),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int) -> None:
    text = (
        'a."b".c = 1\ntext = """\nafter = 2\n"""\nafter = 3\nlist = [ # [\n  1,\n  2,\n]\n'
        "[[data.sources]]\nkinds = { single = 1 }\n[[data.sources]]\n[data.sources.extra]\nk = 1\n"
    )
    assert positions(text)[path] == line
