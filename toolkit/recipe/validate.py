"""From nested values to a `Recipe`, or to every problem they have, in plain words.

Pydantic finds the places; the words come from the schema (`describe`), so that a message always says what was found,
what was wanted and the nearest valid name.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from toolkit.errors import Problem, RecipeError, did_you_mean
from toolkit.recipe.checks import Rule, contradictions
from toolkit.recipe.describe import choices, found, hint, wanted
from toolkit.recipe.names import BY_NAME, SECTIONS, Other, written
from toolkit.recipe.schema import Recipe

Path = tuple[str | int, ...]
_MEANT = {"model": "model.name", "data": "data.sources.0.source", "export": "export.gguf"}  # by a text for a section
Locate = Callable[[Path], str | None]
"""Where a path was written: `file:line`, `--set KEY=VALUE`, or None for a default."""


def validate(values: dict[str, Any], locate: Locate, fallback: str, rules: Iterable[Rule] = ()) -> Recipe:
    """The recipe that `values` spell; `fallback` is where defaults are said to be, `rules` more to be held to.

    Raises `RecipeError` with all problems, in the order of the files, then those of --set.
    """
    problems: dict[Path, str] = {}
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path, message = _explain(values, detail["loc"], detail["type"])
            problems.setdefault(path, message)
        # where one member of a union got further than another, only the inner place is the user's mistake
        inner = {path[:end] for path in problems for end in range(len(path))}
        problems = {path: message for path, message in problems.items() if path not in inner}
        recipe = _without(values, problems)
    listed = [_problem(path, message, locate, fallback) for path, message in problems.items()]
    if recipe is not None:
        listed += [
            _contradiction(keys, message, locate, fallback)
            for keys, message in contradictions(recipe, rules)
            if not any(_overlaps(bad, key) for bad in problems for key in keys)
        ]
    if listed or recipe is None:
        raise RecipeError(sorted(listed, key=_order))
    return recipe


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _order(problem: Problem) -> tuple[bool, str, int]:
    """Files before --set, each file from its top."""
    file, _, line = problem.where.rpartition(":")
    by_set = problem.where.startswith("--set ")
    return (by_set, file, int(line)) if line.isdigit() else (by_set, problem.where, 0)


def _place(path: Path, locate: Locate, fallback: str) -> str:
    """Where the path, or else the nearest table around it, was written."""
    for end in range(len(path), 0, -1):
        if where := locate(path[:end]):
            return where
    return fallback


def _problem(path: Path, message: str, locate: Locate, fallback: str) -> Problem:
    where = _place(path, locate, fallback)
    if where.startswith(f"--set {dotted(path)}="):
        return Problem(where, message)
    return Problem(where, f"{dotted(path)}: {message}")


def _contradiction(keys: tuple[Path, ...], message: str, locate: Locate, fallback: str) -> Problem:
    """Named after the first key that the user wrote; where the others stand follows in brackets."""
    main = next((key for key in keys if locate(key)), keys[0])
    others = [f"{dotted(key)}: {locate(key) or 'default'}" for key in keys if key != main]
    if others:
        message = f"{message} [{'; '.join(others)}]"
    return _problem(main, message, locate, fallback)


def _overlaps(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _without(values: dict[str, Any], problems: dict[Path, str]) -> Recipe | None:
    """The recipe with the bad values left out, so that contradictions among the good ones still show."""
    rest = copy.deepcopy(values)
    for path in problems:
        _remove(rest, path)
    try:
        return Recipe.model_validate(rest)
    except ValidationError:
        return None


def _remove(values: dict[str, Any], path: Path) -> None:
    """Drop what stands at `path`; for an item of a list, or a key that one lacks, the whole list goes."""
    node: Any = values
    around: tuple[dict[str, Any], str] | None = None  # the outermost list on the way, by its table and key
    for step in path:
        inside = step in node if isinstance(node, dict) else isinstance(node, list) and step in range(len(node))
        if inside and step is path[-1] and isinstance(node, dict):
            del node[step]
            return
        if not inside:
            break
        if around is None and isinstance(node[step], list):
            around = (node, str(step))
        node = node[step]
    if around is not None:
        del around[0][around[1]]


def _explain(values: dict[str, Any], loc: Path, kind: str) -> tuple[Path, str]:
    """The path in the user's own terms (pydantic's ends in the members of unions) and what is wrong there."""
    path, value = _follow(values, loc)
    owner = _section(path[:-1])
    if kind == "missing":
        path = loc
        return path, f"missing, wanted {wanted(_fields(_section(path[:-1]))[str(path[-1])])}"
    if kind == "extra_forbidden":
        return path, _unknown(path, value)
    if owner is None or not isinstance(path[-1], str):  # an item of a list or a table of values
        if (section := _section(path)) is not None:
            return path, f"found {found(value)}, wanted a table of settings ({', '.join(section.model_fields)})"
        holder = max((n for n in range(1, len(path)) if _section(path[:n]) is not None), default=0)
        field = _fields(_section(path[:holder]))[str(path[holder])]
        near = did_you_mean(value, choices(field.annotation)) if isinstance(value, str) else ""
        return path, f"found {found(value)}, wanted {dotted(path[: holder + 1])} to be {wanted(field)}{near}"
    field = _fields(owner)[path[-1]]
    meant = _MEANT.get(dotted(path)) if isinstance(value, str) else None
    near = f", did you mean {meant}?" if meant else hint(field, value, dotted(path))
    return path, f"found {found(value)}, wanted {wanted(field)}{near}"


def _follow(values: dict[str, Any], loc: Path) -> tuple[Path, Any]:
    node: Any = values
    path: Path = ()
    for step in loc:
        if isinstance(node, list) and isinstance(step, str):
            continue  # pydantic names the member of the union here
        inside = (isinstance(node, dict) and step in node) or (isinstance(node, list) and isinstance(step, int))
        if not inside:
            break
        node, path = node[step], (*path, step)
    return path, node


def _fields(section: type[BaseModel] | None) -> dict[str, FieldInfo]:
    return section.model_fields if section is not None else {}


def _section(path: Path) -> type[BaseModel] | None:
    """The schema of the table at `path`; None where there is none (a table of free names, a value)."""
    section: type[BaseModel] = Recipe
    rest = list(path)
    while rest:
        step = rest.pop(0)
        field = section.model_fields.get(step) if isinstance(step, str) else None
        if field is None:
            return None
        annotation = field.annotation
        if get_origin(annotation) is list and rest:
            rest.pop(0)
            (annotation,) = get_args(annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        section = annotation
    return section


def sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Each table's heading, the prefix of its keys and its schema, in the order of the schema."""
    for name, field in Recipe.model_fields.items():
        section = _section((name,))
        assert section is not None and field is not None
        yield f"[{name}]", name, section
        for key in section.model_fields:
            if (inner := _section((name, key, 0))) is not None:
                yield f"[[{name}.{key}]]", f"{name}.{key}", inner


def _unknown(path: Path, value: Any) -> str:
    key = str(path[-1])
    owner = _section(path[:-1])
    assert owner is not None
    homes = [heading for heading, _, section in sections() if key in section.model_fields]
    if owner is Recipe and isinstance(value, (dict, list)) and not (homes and isinstance(value, list)):
        known = list(Recipe.model_fields)
        near = did_you_mean(key, known)
        if not near and (ours := SECTIONS.get(key.lower())):
            near = f", did you mean {ours}?"
        return f"unknown section{near}" if near else f"unknown section, wanted one of {', '.join(known)}"
    if homes:
        return f"unknown key; {key} belongs to {' or '.join(homes)}"
    if (other := BY_NAME.get(_snake(key))) is not None:
        return _theirs(other, path[:-1], value)
    if near := did_you_mean(key, owner.model_fields):
        return f"unknown key{near}"
    everywhere = {f"{prefix}.{name}": name for _, prefix, section in sections() for name in section.model_fields}
    by_name = {name: full for full, name in reversed(everywhere.items())}
    near = did_you_mean(key, by_name)
    if near:
        return f"unknown key, did you mean {by_name[near.removeprefix(', did you mean ').removesuffix('?')]}?"
    return f"unknown key, wanted one of {', '.join(owner.model_fields)}"


def _snake(key: str) -> str:
    """`learningRate` and `learning-rate` as `learning_rate`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().replace("-", "_")


def _theirs(other: Other, owner: Path, value: Any) -> str:
    """What to write in place of another tool's key."""
    if not other.ours:
        return f"unknown key; {other.word}"
    if other.value and value is False:
        return f"unknown key; leave it out to go without (with it: {other.ours} = {other.value})"
    section = other.ours.rpartition(".")[0]
    inside = section == ".".join(step for step in owner if isinstance(step, str))
    key = written(other) if inside else f"{section}.{written(other)}"
    return f"unknown key, did you mean {key}?" + (f" ({other.word})" if other.word else "")
