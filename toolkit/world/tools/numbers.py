"""Arithmetic, units and statistics: no state."""

from __future__ import annotations

import ast
import math
import operator
import statistics
from collections.abc import Callable
from random import Random
from typing import Any

from toolkit.world.language import Said, join, neat
from toolkit.world.spec import ToolFailure, array, chain, integer, number, string, tool
from toolkit.world.world import World

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_UNITS: dict[str, tuple[str, float]] = {
    "km": ("length", 1000.0),
    "miles": ("length", 1609.344),
    "m": ("length", 1.0),
    "feet": ("length", 0.3048),
    "inches": ("length", 0.0254),
    "cm": ("length", 0.01),
    "kg": ("weight", 1.0),
    "pounds": ("weight", 0.45359237),
    "g": ("weight", 0.001),
    "ounces": ("weight", 0.028349523125),
    "liters": ("volume", 1.0),
    "gallons": ("volume", 3.785411784),
    "cups": ("volume", 0.2365882365),
    "celsius": ("temperature", 1.0),
    "fahrenheit": ("temperature", 1.0),
}
_BIG = 1e15


def tidy(value: float) -> float | int:
    """Rounded to 4 decimals, and whole where that is whole."""
    if isinstance(value, complex) or not math.isfinite(value) or abs(value) > _BIG:
        raise ToolFailure("the result is too large or not a number")
    value = round(value, 4)
    return int(value) if value == int(value) else value


def _evaluate(node: ast.AST) -> float:
    if isinstance(node, ast.Expression):
        return _evaluate(node.body)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_evaluate(node.operand)))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > 64:
            raise ToolFailure("exponent too large")
        value = _OPERATORS[type(node.op)](left, right)
        tidy(value)
        return float(value)
    raise ToolFailure("only numbers and + - * / % ** ( ) are allowed")


def _expression(r: Random) -> str:
    def atom() -> str:
        return str(r.randint(2, 999)) if r.random() < 0.7 else f"{r.uniform(1, 200):.1f}"

    text = f"{atom()} {r.choice('+-*')} {atom()}"
    if r.random() < 0.5:
        text = f"({text}) {r.choice('*/')} {r.randint(2, 40)}"
    elif r.random() < 0.4:
        text = f"{text} {r.choice('+-')} {atom()}"
    return text


def _slots(r: Random, w: World) -> dict[str, Any]:
    kind = r.choice(("length", "length", "weight", "volume", "temperature"))
    units = [name for name, (what, _) in _UNITS.items() if what == kind]
    source, target = r.sample(units, 2)
    value = r.choice((r.randint(1, 400), neat(round(r.uniform(1, 90), 1))))
    numbers = [r.choice((r.randint(1, 500), neat(round(r.uniform(1, 99), 1)))) for _ in range(r.randint(3, 6))]
    return {
        "expression": _expression(r),
        "value": value,
        "from_unit": source,
        "to_unit": target,
        "numbers": Said(numbers, join([str(n) for n in numbers])),
        "percent": r.choice((r.randint(1, 60), neat(r.randint(10, 75) / 2))),
        "base": r.randint(20, 9000),
        "n": r.randint(12, 5000),
        "a": r.randint(12, 900),
        "b": r.randint(12, 900),
    }


def _broken(r: Random, w: World) -> dict[str, Any]:
    source, target = r.choice(
        (
            ("kg", "miles"),
            ("liters", "feet"),
            ("celsius", "ounces"),
            ("cm", "gallons"),
            ("cups", "pounds"),
            ("inches", "g"),
        )
    )
    return {
        "from_unit": source,
        "to_unit": target,
        "expression": f"{r.randint(2, 900)} / ({(n := r.randint(2, 900))} - {n})",
    }


@tool(
    "math",
    "Work out an arithmetic expression with + - * / % ** and brackets.",
    sample=_slots,
    bad=_broken,
    near=("percent_of",),
    params={"expression": string("The expression, exactly as the user wrote it.")},
)
def calculate(w: World, expression: str) -> Any:
    if len(expression) > 200:
        raise ToolFailure("expression too long")
    try:
        return {"result": tidy(_evaluate(ast.parse(expression.strip(), mode="eval")))}
    except ZeroDivisionError:
        raise ToolFailure("division by zero") from None
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        raise ToolFailure("not an arithmetic expression") from None


@tool(
    "math",
    "Convert a value from one unit to another of the same kind (length, weight, volume, temperature).",
    sample=_slots,
    bad=_broken,
    near=("calculate",),
    params={
        "value": number("How much of the first unit."),
        "from_unit": string("Unit of the value.", tuple(_UNITS)),
        "to_unit": string("Unit wanted.", tuple(_UNITS)),
    },
)
def convert_units(w: World, value: float, from_unit: str, to_unit: str) -> Any:
    (kind, size), (other, target) = _UNITS[from_unit], _UNITS[to_unit]
    if kind != other:
        raise ToolFailure(f"can't convert {kind} to {other}")
    if kind == "temperature":
        result = value
        if from_unit != to_unit:
            result = value * 9 / 5 + 32 if to_unit == "fahrenheit" else (value - 32) * 5 / 9
    else:
        result = value * size / target
    return {"value": tidy(value), "from_unit": from_unit, "result": tidy(result), "to_unit": to_unit}


@tool(
    "math",
    "Give the mean, the median, the smallest and the largest of a list of numbers.",
    sample=_slots,
    near=("calculate", "sum_numbers"),
    params={"numbers": array("The numbers, in the order given.", "number")},
)
def describe_numbers(w: World, numbers: list[float]) -> Any:
    if not numbers:
        raise ToolFailure("no numbers given")
    return {
        "mean": tidy(statistics.fmean(numbers)),
        "median": tidy(statistics.median(numbers)),
        "smallest": tidy(min(numbers)),
        "largest": tidy(max(numbers)),
    }


@tool(
    "math",
    "Add up a list of numbers.",
    sample=_slots,
    near=("calculate", "describe_numbers"),
    params={"numbers": array("The numbers, in the order given.", "number")},
)
def sum_numbers(w: World, numbers: list[float]) -> Any:
    return {"sum": tidy(math.fsum(numbers)), "count": len(numbers)}


@tool(
    "math",
    "Compute a percentage of an amount.",
    sample=_slots,
    near=("calculate",),
    params={"percent": number("The percentage, 15 for 15%."), "base": number("The amount it is taken of.")},
)
def percent_of(w: World, percent: float, base: float) -> Any:
    return {"result": tidy(percent * base / 100)}


@tool(
    "math",
    "Split a whole number into its prime factors.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"n": integer("The number.", 2, 1_000_000)},
)
def prime_factors(w: World, n: int) -> Any:
    factors: list[int] = []
    rest, divisor = n, 2
    while divisor * divisor <= rest:
        while rest % divisor == 0:
            factors.append(divisor)
            rest //= divisor
        divisor += 1
    return {"n": n, "factors": factors + ([rest] if rest > 1 else [])}


@tool(
    "math",
    "Find the greatest common divisor of two whole numbers.",
    sample=_slots,
    held_out=True,
    near=("prime_factors",),
    either_way=("a", "b"),
    params={"a": integer("First number.", 1, 1_000_000_000), "b": integer("Second number.", 1, 1_000_000_000)},
)
def common_divisor(w: World, a: int, b: int) -> Any:
    return {"divisor": math.gcd(a, b)}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("math", "sum_numbers", "percent_of", sample=_chain_slots)
def sum_then_percent(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    total = do("sum_numbers", numbers=s["_numbers"])["sum"]
    return {"sum": total, "part": do("percent_of", percent=s["_percent"], base=total)["result"]}


@chain("math", "calculate", "convert_units", sample=_chain_slots)
def calculate_then_convert(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    value = do("calculate", expression=s["_expression"])["result"]
    return {"value": value, **do("convert_units", value=value, from_unit=s["_from_unit"], to_unit=s["_to_unit"])}


@chain("math", "describe_numbers", "percent_of", sample=_chain_slots)
def percent_of_largest(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    largest = do("describe_numbers", numbers=s["_numbers"])["largest"]
    return {"largest": largest, "part": do("percent_of", percent=s["_percent"], base=largest)["result"]}


@chain("math", "common_divisor", "prime_factors", sample=_chain_slots)
def divisor_factors(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    divisor = do("common_divisor", a=s["_a"], b=s["_b"])["divisor"]
    return {"divisor": divisor, "factors": do("prime_factors", n=divisor)["factors"]}
