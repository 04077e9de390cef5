"""What a setting may be and what was found instead, in plain words, from the schema's own types."""

from __future__ import annotations

import datetime
import json
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from toolkit.errors import did_you_mean, meant


def wanted(field: FieldInfo) -> str:
    """The values that a field takes, as `a whole number above 0` or `one of cosine, linear`."""
    return _type(field.annotation, field.metadata)


def choices(annotation: Any) -> list[str]:
    """All the words that an annotation's `Literal` parts allow."""
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if isinstance(value, str)]
    return [word for part in get_args(annotation) for word in choices(part)]


def found(value: Any) -> str:
    """A value as the user would write it in TOML, shortened."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = f'"{value}"'
        case list():
            text = "a list" if value else "an empty list"
        case dict():
            text = "a table"
        case datetime.date() | datetime.time():
            text = f"the date or time {value}"
        case _:
            text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def hint(field: FieldInfo, value: Any, key: str = "") -> str:
    """How to write `value` so that it fits the field, whose whole name is `key`, where that can be guessed; else an
    empty string."""
    kinds = set(_kinds(field.annotation))
    if isinstance(value, dict) and get_origin(field.annotation) is list and _is_table(get_args(field.annotation)[0]):
        return f", write its head in double brackets: [[{key}]]"
    if isinstance(value, str):
        if list in kinds and value.lower() in ("none", "off", "false"):
            return ", write [] for none"
        words = [word.strip() for word in value.split(",")]
        if list in kinds and words and set(words) <= set(choices(field.annotation)):
            return f", write {json.dumps(words)}"
        begun = (choice for choice in choices(field.annotation) if value and choice.startswith(f"{value.lower()}_"))
        if near := meant(next(begun, "")) or did_you_mean(value.lower(), choices(field.annotation)):
            return near
        if bool in kinds and value.lower() in ("true", "false"):
            return f", write {value.lower()} without quotes"
        if kinds & {int, float} and _is_number(value):
            return f", write {value} without quotes"
        if list in kinds and not any(_is_table(part) for part in get_args(field.annotation)):
            return f', write ["{value}"]'
    if isinstance(value, (int, float)) and not isinstance(value, bool) and kinds & {str} and not kinds & {int, float}:
        return f', write "{value}" in quotes'
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kinds(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif origin is not Literal:
        yield origin or annotation


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        flat = [item for entry in extra for item in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        return _type(inner, [*metadata, *flat])
    if origin in (Union, types.UnionType):
        parts = [_type(part, metadata) for part in get_args(annotation) if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        words = [str(word) for word in get_args(annotation)]
        return f'"{words[0]}"' if len(words) == 1 else "one of " + ", ".join(words)
    if origin is list:
        (item,) = get_args(annotation)
        least = any(isinstance(bound, annotated_types.MinLen) for bound in metadata)
        if _is_table(item):
            return "one or more tables" if least else "tables"
        return f"a list of {_plural(item)}"
    if origin is dict:
        return f"a table of {_plural(get_args(annotation)[1])} by name"
    if _is_table(annotation):
        return "a table"
    if annotation is bool:
        return "true or false"
    if annotation is str:
        return "text that is not empty" if any(isinstance(m, annotated_types.MinLen) for m in metadata) else "text"
    noun = "a whole number" if annotation is int else "a number"
    return noun + _bounds(metadata)


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _plural(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "words out of " + ", ".join(map(str, get_args(annotation)))
    return {str: "texts", int: "whole numbers", float: "numbers"}.get(annotation, "values")


def _bounds(metadata: Sequence[Any]) -> str:
    words = []
    for bound in metadata:
        match bound:
            case annotated_types.Gt(gt=low):
                words.append(f"above {low}")
            case annotated_types.Ge(ge=low):
                words.append(f"of at least {low}")
            case annotated_types.Lt(lt=high):
                words.append(f"below {high}")
            case annotated_types.Le(le=high):
                words.append(f"of at most {high:,}".removesuffix(".0"))
    return "".join(f" {word}" if n == 0 else f" and {word}" for n, word in enumerate(words))
