"""What a call of a shelf tool returns: the same for one seed and one call."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from toolkit.world.language import neat, said
from toolkit.world.shelf.entry import Entry
from toolkit.world.shelf.functions import made
from toolkit.world.shelf.values import draw
from toolkit.world.spec import ToolFailure

if TYPE_CHECKING:
    from toolkit.world.world import World

_OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def parameters(entry: Entry) -> dict[str, Any]:
    """The JSON schema of the tool's parameters, under its own names."""
    return {
        "type": "object",
        "properties": {name: param.schema for name, param in entry.params.items()},
        "required": list(entry.required),
    }


def run(entry: Entry, arguments: Mapping[str, Any], r: Random, w: World) -> dict[str, Any]:
    """The fields of the result. Raises ToolFailure or ArithmeticError for values it can't work with."""
    found: dict[str, Any] = {}
    for field in entry.result:
        kind, _, rest = field.kind.partition(" ")
        if kind == "=":
            found[field.name] = _calculated(rest, entry, arguments)
        elif kind == "pick":
            found[field.name] = r.choice(_options(rest, arguments))
        elif kind == "made":
            found[field.name] = made(rest, arguments)
        elif kind == "by":
            found[field.name] = _looked_up(rest, arguments)
        elif kind.startswith("!"):
            found[field.name] = field.kind[1:]
        else:
            found[field.name] = said(draw(field.kind, r, w)).value
    return found


def _looked_up(text: str, arguments: Mapping[str, Any]) -> str:
    """`PARAM a=b|c=d`: what stands for the argument's value."""
    name, _, table = text.partition(" ")
    rows = dict(row.split("=", 1) for row in table.split("|"))
    if arguments[name] not in rows:
        raise ToolFailure(f"nothing is known about: {arguments[name]}")
    return rows[arguments[name]]


def _options(names: str, arguments: Mapping[str, Any]) -> list[Any]:
    """What is chosen from: the members of a list, or the arguments named."""
    given = [arguments[name] for name in names.split() if name in arguments]
    options = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    if not options:
        raise ToolFailure("nothing to choose from")
    return list(options)


@cache
def _expression(text: str) -> ast.AST:
    return ast.parse(text, mode="eval").body


def _calculated(text: str, entry: Entry, arguments: Mapping[str, Any]) -> float | int:
    defaults = {name: param.default for name, param in entry.params.items() if param.default is not None}
    names = {**defaults, **arguments}
    total = _evaluate(_expression(text), names)
    if not math.isfinite(total) or abs(total) > 1e15:
        raise ToolFailure("the result is too large")
    result: float | int = neat(round(float(total), 2))
    return result


def _evaluate(node: ast.AST, names: Mapping[str, Any]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Name):
        return float(names[node.id])
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_evaluate(node.left, names), _evaluate(node.right, names))
    raise ValueError(f"an expression on the shelf has {type(node).__name__}")
