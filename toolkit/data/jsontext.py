"""JSON as its standard has it, and the Python literals that data sets hold in its place.

Python's own reader takes NaN, Infinity, numbers beyond all bounds, half characters and keys that stand twice; a model
that learnt to write them would write what no other reader takes.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import warnings
from typing import Any, NoReturn

from toolkit.data.notes import RowError, shown
from toolkit.jsons import DEEPEST, TOO_DEEP, is_deep

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of one half of a character beyond the first 65,536
_NAMES = {"true": True, "false": False, "null": None}


class _Refused(ValueError):
    """Valid for Python's reader, but not JSON. `cause` names nothing of the row."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no number of JSON", "NaN or Infinity, which are no numbers of JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"{shown(text, 20)} is beyond all numbers of a computer", "a number beyond all bounds")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise _Refused(f"the key {shown(twice)} stands twice in one object", "a key that stands twice in one object")
    return value


STRICT = json.JSONDecoder(parse_constant=_constant, parse_float=_number, object_pairs_hook=_object)
LAX = json.JSONDecoder(parse_int=str)


def loads(text: str, what: str = "") -> Any:
    """The JSON value that `text` is. Raises `RowError` that says what is not JSON and where it breaks."""
    try:
        value = STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise not_json(error, what) from None
    if _HALF.search(text):
        refuse_halves(value, what)
    return value


def not_json(error: Exception, what: str = "") -> RowError:
    """What went wrong in decoding, as a bad row's error."""
    if isinstance(error, RecursionError):
        reason = "it is nested too deep"
    elif "integer string conversion" in str(error):
        reason = "it holds a whole number of more than 4,300 digits"
    elif isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    else:
        reason = str(error)
    cause = "nested too deep" if isinstance(error, RecursionError) else "not JSON"
    if isinstance(error, _Refused):
        cause = error.cause
    return RowError(f"{what}: not JSON: {reason}" if what else f"not JSON: {reason}", cause)


def refuse_halves(value: Any, what: str = "") -> None:
    """Raise `RowError` when a text in `value` holds one half of a character: it can't be written as UTF-8."""
    stack = [(value, what)]
    while stack:
        inner, place = stack.pop()
        if isinstance(inner, str):
            try:
                inner.encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(inner[error.start]):04x}"
                raise RowError(
                    f"{place or 'the row'}: a lone surrogate {half}, half of a character (a cut emoji, say)",
                    cause="a lone surrogate, half of a character",
                ) from None
        elif isinstance(inner, dict):
            for key, part in inner.items():
                stack += [(key, f"a key of {place or 'the row'}"), (part, f"{place}.{key}" if place else str(key))]
        elif isinstance(inner, list):
            stack += [(part, f"{place}[{index}]") for index, part in enumerate(inner)]


def dumps(value: Any, what: str) -> str:
    """A value as JSON text. Raises `RowError` for what JSON can't say (dates and bytes out of parquet files, NaN)."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError(f"{what}: JSON can't say this: {error}", cause="a value that JSON can't say") from None
    except RecursionError:
        raise RowError(f"{what}: nested too deep", cause="nested too deep") from None


def refuse_deep(value: Any, text: str, what: str) -> None:
    """Raise `RowError` when `value`, whose JSON is `text`, has more than 100 levels."""
    if text.count("{") + text.count("[") > DEEPEST and is_deep(value):
        raise RowError(f"{what}: {TOO_DEEP}", cause="nested too deep")


def literal(text: str, what: str) -> Any:
    """JSON, or the Python literal that data sets often hold in its place. Raises `RowError`.

    Of Python only what JSON can say is taken: no sets, bytes, complex numbers, keys that are no text, no two strings
    side by side (which Python joins: an apostrophe that was not escaped).
    """
    try:
        value = STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, _Refused | RecursionError):
            raise not_json(error, what) from None
        refused = not_json(error, what)
    else:
        if _HALF.search(text):
            refuse_halves(value, what)
        return value
    try:
        with warnings.catch_warnings(action="ignore"):  # of backslashes that Python finds odd
            tree = ast.parse(text.strip(), mode="eval")
        _refuse_joined(text, what)
        value = _plain(tree.body, what)
    except (SyntaxError, ValueError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise error if isinstance(error, RowError) else refused from None
    refuse_halves(value, what)
    return value


def _refuse_joined(text: str, what: str) -> None:
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if token.type == before == tokenize.STRING:
            raise RowError(f"{what}: two strings side by side: a quote within a text is not escaped", "unescaped quote")
        before = token.type


def _plain(node: ast.expr, what: str) -> Any:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, str | bool | int):
            return value
        case ast.Constant(value=float() as value) if math.isfinite(value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if math.isfinite(value):
            return -value
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_plain(item, what) for item in items]
        case ast.Dict(keys=keys, values=values):
            found: dict[str, Any] = {}
            for key, item in zip(keys, values, strict=True):
                named = _plain(key, what) if key is not None else None
                if not isinstance(named, str):
                    raise RowError(f"{what}: a key that is no text", cause="a key that is no text")
                if named in found:
                    raise RowError(
                        f"{what}: the key {shown(named)} stands twice in one object",
                        "a key that stands twice in one object",
                    )
                found[named] = _plain(item, what)
            return found
    kinds = {ast.Set: "a set", ast.Constant: "bytes, a complex number or the like", ast.Name: "a name without quotes"}
    kind = kinds.get(type(node), "an expression")
    raise RowError(f"{what}: {kind}, which JSON can't say", cause="a value that JSON can't say")
