"""Only toolkit/engines knows an engine by its name: the rest of the toolkit asks the object."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.engines import ENGINES

ROOT = Path(__file__).parents[2]
TABLE = "bench/variants.py"  # whose variants name the engines that they measure
ABOVE = ("bench", *(f"toolkit/{name}" for name in ("commands", "training", "reports", "export", "evaluation")))
SOURCES = [
    path
    for top in ("toolkit", "bench")
    for path in sorted((ROOT / top).rglob("*.py"))
    if not path.is_relative_to(ROOT / "toolkit" / "engines")
]


def is_named(node: ast.expr) -> bool:
    """Whether an expression is an engine's name, or a list of some."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(is_named(element) for element in node.elts)
    return isinstance(node, ast.Constant) and node.value in ENGINES


def decisions(tree: ast.AST) -> Iterator[ast.AST]:
    """Where something is decided by an engine's name: compared, matched, looked up in a table of names."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                found = any(map(is_named, (node.left, *node.comparators)))
            case ast.MatchValue(value=value):
                found = is_named(value)
            case ast.Dict():
                found = any(key is not None and is_named(key) for key in node.keys)
            case ast.Subscript(value=table, slice=key):
                found = is_named(key) and not (isinstance(table, ast.Name) and table.id == "Literal")
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith" | "get")):
                found = any(map(is_named, node.args))
            case _:
                found = False
        if found:
            yield node


def test_no_name_of_an_engine_decides_anything() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
        for path in SOURCES
        if path.relative_to(ROOT).as_posix() != TABLE
        for node in decisions(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        'engine == "unsloth"',
        'engine in ("peft", "other")',
        '{"compiled": 1}[engine]',
        'ENGINES["peft"]',
        'name.startswith("unsloth")',
        'match engine:\n    case "peft" | "compiled":\n        pass',
    ],
)
def test_a_decision_by_name_is_seen(code: str) -> None:
    assert list(decisions(ast.parse(code)))
    assert not list(decisions(ast.parse('setup_of(recipe, shape, "unsloth")\nName = Literal["peft"]')))


def test_recipes_are_read_with_what_engines_say_of_them() -> None:
    """`toolkit.recipe.load` is for layers that know no engines."""
    for path in SOURCES:
        if path.relative_to(ROOT).as_posix().startswith(ABOVE):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module in ("toolkit.recipe", "toolkit.recipe.load"):
                    assert "load" not in [name.name for name in node.names], path
