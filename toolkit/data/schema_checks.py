"""Values held against JSON schemas: jsonschema, with nothing in it that outside text can make fetch, hang or fill up.

References are answered from the schema alone, patterns are searched by `toolkit.patterns`, and each check has a budget:
so many steps, each dearer by the size of what it looks at, because every message repeats the value that it is about.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import referencing

from toolkit.data.schema_rules import check_schema, subschemas
from toolkit.patterns import PatternError, compiled

BUDGET = 10_000_000  # characters looked at, with 400 for each step
MOST_ERRORS = 50
_STEP = 400
_LONGEST_KEPT = 20_000  # characters of a schema that is kept for the next chat


class UncheckedError(ValueError):
    """A value can't be held against its schema within bounds, or the schema is none."""


class Checker:
    """A schema that values are held against. Raises `UncheckedError` when it is no schema (`check_schema` says why).

    One whose check ran out of its budget is not tried again.
    """

    def __init__(self, schema: Any) -> None:
        if reason := check_schema(schema):
            raise UncheckedError(reason)
        self._own = json.loads(json.dumps(schema))
        inside = subschemas(self._own)
        for one in inside:
            # These would send jsonschema to another draft's unbounded validator, or to another address.
            one.pop("$schema", None)
            one.pop("$id", None)
        self._sizes = _sizes(self._own)
        self._mixed = any("unevaluatedProperties" in one for one in inside) and any(
            "patternProperties" in one for one in inside
        )
        self._given_up = ""

    def errors(self, value: Any) -> list[Any]:
        """The `jsonschema.ValidationError`s of a value, the first 50. Raises `UncheckedError` beyond the bounds."""
        return list(self._checked(value, MOST_ERRORS))

    def fits(self, value: Any) -> bool:
        """Whether a value has no error. Raises `UncheckedError` beyond the bounds."""
        return not list(self._checked(value, 1))

    def _checked(self, value: Any, most: int) -> Iterator[Any]:
        if self._given_up or self._mixed:
            raise UncheckedError(self._given_up or "unevaluatedProperties beside patternProperties is not supported")

        validator = _validators()(self._own, registry=referencing.Registry())
        _spent.sizes, _spent.left = {**self._sizes, **_sizes(value)}, BUDGET
        try:
            for count, error in enumerate(validator.iter_errors(value), 1):
                yield error
                if count >= most:
                    return
        except _OverBudget:
            self._given_up = "the schema takes too long to be checked"
            raise UncheckedError(self._given_up) from None
        except RecursionError:
            raise UncheckedError("nested too deep to be checked") from None
        except PatternError as error:
            raise UncheckedError(str(error)) from None
        finally:
            _spent.sizes = {}


def checker(schema: Any) -> Checker:
    """A schema's `Checker`, kept for the next call with the same schema. Raises `UncheckedError` as `Checker` does."""
    text = json.dumps(schema)
    return _kept(text) if len(text) <= _LONGEST_KEPT else Checker(schema)


@lru_cache(maxsize=4096)
def _kept(text: str) -> Checker:
    return Checker(json.loads(text))


class _OverBudget(Exception):
    pass


class _Spent(threading.local):
    left = 0
    sizes: dict[int, int] = {}  # noqa: RUF012 - never changed, only replaced


_spent = _Spent()


def _spend(*values: Any) -> None:
    _spent.left -= _STEP
    for value in values:
        _spent.left -= len(value) if isinstance(value, str) else _spent.sizes.get(id(value), 0)
    if _spent.left < 0:
        raise _OverBudget


def _sizes(value: Any) -> dict[int, int]:
    """Characters of each list and object inside `value`, about, by `id`."""
    found: dict[int, int] = {}
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        one, counted = stack.pop()
        inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else None
        if inner is None or (id(one) in found and not counted):
            continue
        if counted:
            names = sum(map(len, one)) if isinstance(one, dict) else 0
            found[id(one)] = names + sum(
                8 + (len(each) if isinstance(each, str) else found.get(id(each), 0)) for each in inner
            )
        else:
            stack.append((one, True))
            stack += [(each, False) for each in inner]
    return found


@cache
def _validators() -> Any:
    """Draft 2020-12's validator class, each keyword paid for, with our own in place of those without a bound."""
    import jsonschema

    base = jsonschema.Draft202012Validator
    return jsonschema.validators.extend(base, {name: _paid(run) for name, run in {**base.VALIDATORS, **_own()}.items()})


def _paid(run: Callable[..., Any]) -> Callable[..., Any]:
    def keyword(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
        _spend(value, wanted)
        return run(validator, wanted, value, schema)

    return keyword


def _own() -> dict[str, Callable[..., Any]]:
    from jsonschema import ValidationError

    def pattern(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if isinstance(value, str) and not compiled(wanted).found_in(value):
            yield ValidationError(f"{value!r} does not match {wanted!r}")

    def pattern_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        for text, inner in wanted.items() if isinstance(value, dict) else ():
            for name in value:
                _spend(name)
                if compiled(text).found_in(name):
                    yield from validator.descend(value[name], inner, path=name, schema_path=text)

    def additional_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(value, dict):
            return
        patterns = [compiled(text) for text in schema.get("patternProperties", ())]
        for name in value:
            _spend(name)
            if name in schema.get("properties", ()) or any(one.found_in(name) for one in patterns):
                continue
            if wanted is False:
                message = f"additional properties are not allowed ({name!r} was unexpected)"
                yield ValidationError(message, validator_value=name)
            else:
                yield from validator.descend(value[name], wanted, path=name)

    def required(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        for name in wanted if isinstance(value, dict) else ():
            if name not in value:
                yield ValidationError(f"{name!r} is a required property", validator_value=name)

    def multiple_of(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(value, "number") and not _multiple(value, wanted):
            yield ValidationError(f"{value!r} is not a multiple of {wanted}")

    def unique_items(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if wanted and isinstance(value, list):
            seen = {json.dumps(_one_form(each), sort_keys=True) for each in value}
            if len(seen) < len(value):
                yield ValidationError(f"{value!r} has non-unique elements")

    return {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "required": required,
        "multipleOf": multiple_of,
        "uniqueItems": unique_items,
    }


def _multiple(value: float, of: float) -> bool:
    """Whether `value` is a whole number of times `of`: in floats, where 0.3 is three times 0.1, as far as they go."""
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    try:
        times = value / of
        return int(times) == times
    except (OverflowError, ValueError):
        pass
    try:
        return (Fraction(value) / Fraction(of)).denominator == 1
    except (OverflowError, ValueError):  # infinity, not a number
        return False


def _one_form(value: Any) -> Any:
    """JSON in which equal values are written alike: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _one_form(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_one_form(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
