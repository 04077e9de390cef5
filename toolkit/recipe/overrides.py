"""`--set KEY=VALUE`: one value put over what the recipe's files say, read as TOML."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import dataclass
from typing import Any

from toolkit.errors import Problem, RecipeError
from toolkit.recipe import toml
from toolkit.recipe.schema import Recipe

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Override:
    """A `--set`, taken apart. `where` is how messages name it."""

    keys: tuple[str, ...]
    value: Any
    where: str


def parse_override(text: str) -> Override:
    """`train.learning_rate=1e-4` -> keys and value. A value that is no TOML is text: quotes may be left out.

    Raises `RecipeError` for a missing `=`, an empty key, and lists, tables or quoted texts that are not closed.
    """
    where = f"--set {text}"
    key, equals, raw = text.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise RecipeError(Problem(where, "wanted KEY=VALUE, as in --set train.learning_rate=1e-4"))
    return Override(keys, _read(raw.strip(), where), where)


def _read(raw: str, where: str) -> Any:
    try:
        parsed = toml.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError as error:
        if str(error).startswith(("Nested", "A number")):
            raise RecipeError(Problem(where, f"{str(error).partition(' (at ')[0].lower()}")) from None
        parsed = {}
    value = parsed.get("value")
    if value is None or len(parsed) != 1 or isinstance(value, (datetime.date, datetime.time)):
        if raw[:1] in ("[", "{", '"', "'"):
            raise RecipeError(
                Problem(where, f'{raw} is not closed or not valid TOML; quote it for the shell, as \'["a", "b"]\'')
            )
        return raw
    return value


def apply_override(values: dict[str, Any], override: Override) -> Path:
    """Put the value into `values` and return its path. Numbers in the key index lists: `data.sources.0.size`.

    A list that no file wrote is first filled with its default, so that its items can be named.
    """
    node: Any = values
    path: Path = ()
    *steps, last = override.keys
    for step in steps:
        key = _step(node, path, step, override)
        if isinstance(node, dict) and key not in node:
            node[key] = _default((*path, key))
        node, path = node[key], (*path, key)
        if not isinstance(node, (dict, list)):
            raise RecipeError(
                Problem(override.where, f"{'.'.join(map(str, path))} is a single value, it holds no {last}")
            )
    key = _step(node, path, last, override)
    old = node.get(key) if isinstance(node, dict) else node[key]
    if isinstance(old, dict) and isinstance(override.value, dict):
        old.update(override.value)
    else:
        node[key] = override.value
    return (*path, key)


def _step(node: Any, path: Path, step: str, override: Override) -> str | int:
    if isinstance(node, dict):
        return step
    name = ".".join(map(str, path))
    if not step.isdigit():
        raise RecipeError(Problem(override.where, f"{name} is a list, wanted a number after it, as {name}.0"))
    if int(step) >= len(node):
        items = "1 item" if len(node) == 1 else f"{len(node)} items"
        raise RecipeError(Problem(override.where, f"{name} has {items}, counted from 0; there is no {step}"))
    return int(step)


def _default(path: Path) -> Any:
    node: Any = Recipe()
    for step in path:
        node = getattr(node, str(step), None)
    if isinstance(node, list):
        return [item.model_dump(exclude_unset=True) if hasattr(item, "model_dump") else item for item in node]
    return {}
