"""Read a recipe: its file, the files it extends, and `--set` values over them, into one validated `Recipe`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.chats import BUILTIN_PREFIX
from toolkit.errors import InputError, Problem, RecipeError, did_you_mean
from toolkit.recipe import toml
from toolkit.recipe.checks import Rule
from toolkit.recipe.formats import data_message, init_hint, is_data, other_format, toml_line
from toolkit.recipe.overrides import apply_override, parse_override
from toolkit.recipe.places import NAME, Known, Placed, placed
from toolkit.recipe.positions import positions
from toolkit.recipe.schema import Recipe
from toolkit.recipe.validate import validate

KeyPath = tuple[str | int, ...]

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = " (at end of document)"
_KEY = re.compile(rf"(?:{'|'.join(Recipe.model_fields)})(?:\.\w+)+")


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe and where its values were written.

    `files` are all files read, the one named on the command line first, then what it extends; `notes` are lines for
    the user about how it was read.
    """

    recipe: Recipe
    path: Path
    files: tuple[Path, ...]
    overrides: tuple[str, ...] = ()
    places: Mapping[KeyPath, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The recipe's name: its file's, without `.toml`."""
        return self.path.stem

    def where(self, key: str) -> str:
        """Where `key`, as `lora.r` or `data.sources.0.size`, was written: `recipes/x.toml:17` or `--set lora.r=8`.

        The place of the nearest table around it for a default, and the recipe's path when that was not written either.
        """
        path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return str(self.path)

    @contextmanager
    def placed(self) -> Iterator[LoadedRecipe]:
        """Give every `InputError` raised inside, about a key or a source of this recipe, the place of that key."""
        try:
            yield self
        except InputError as error:
            raise type(error)([self.place(problem) for problem in error.problems]) from error

    def place(self, problem: Problem) -> Problem:
        """The problem with the place of the key or source that its message begins with, where it has none yet."""
        if problem.where:
            return problem
        message = problem.message
        for name, settings in (("data", self.recipe.data), ("eval", self.recipe.eval)):
            for index, source in enumerate(settings.sources):
                place = self.places.get((name, "sources", index, "source"))
                if place is not None and message.startswith(f"{source.source}: "):
                    message = f"{name}.sources.{index}.source: {_looked_for(place, source.source, message)}"
        if (match := _KEY.match(message)) is None:
            return problem
        where = self.where(match[0])
        if match[0] == "model.name":
            message += _beside(where, self.recipe.model.name)
        return Problem(where, message.removeprefix(f"{match[0]}: ") if where.startswith("--set ") else message)


def load(path: Path, overrides: Sequence[str] = (), rules: Iterable[Rule] = ()) -> LoadedRecipe:
    """The recipe in `path` with `overrides` (`KEY=VALUE`) applied in order.

    What only engines know is not checked, unless by `rules`: `toolkit.engines.recipes.load` does.

    Raises `RecipeError` that holds every problem found: unknown keys, wrong types, impossible values, contradictions.
    """
    path = Path(path)
    layer = _Layer.read(path, seen=())
    problems: list[Problem] = []
    for text in overrides:
        try:
            layer.override(text)
        except RecipeError as error:
            problems += error.problems
    try:
        recipe = placed(validate(layer.values, layer.places.get, str(path), rules), layer.values)
    except RecipeError as error:
        raise RecipeError([*error.problems, *problems]) from None
    if problems:
        raise RecipeError(problems)
    return LoadedRecipe(recipe, path, tuple(layer.files), tuple(overrides), layer.places, tuple(layer.notes))


@dataclass
class _Layer:
    """Values with the place of each key."""

    values: dict[str, Any]
    places: dict[KeyPath, str]
    files: list[Path]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, seen: tuple[Path, ...]) -> _Layer:
        text = _text(path)
        values = _parse(path, text)
        places: dict[KeyPath, str] = {at: f"{path}:{line}" for at, line in positions(text).items()}
        layer = cls(values, places, [path])
        layer.find_sources(path.parent, Known.of(path.parent) if path.name == NAME else None)
        if "extends" not in values:
            return layer
        base = values.pop("extends")
        where = places.pop(("extends",))
        if not isinstance(base, str):
            raise RecipeError(Problem(where, 'extends: wanted the path of one other recipe, as "tools.toml"'))
        target = Path(os.path.normpath(path.parent / base))
        chain = (*seen, path)
        if target.resolve() in [one.resolve() for one in chain]:
            circle = " -> ".join(map(str, (*chain, target)))
            raise RecipeError(Problem(where, f"extends: goes in a circle: {circle}"))
        if not target.is_file():
            raise RecipeError(Problem(where, f"extends: {_missing(target)}"))
        below = cls.read(target, chain)
        below.cover(layer)
        return below

    def cover(self, top: _Layer) -> None:
        """Lay `top` over these values: tables are merged key by key, everything else is replaced."""
        self._merge(self.values, top.values, (), top.places)
        self.files = [*top.files, *self.files]
        self.notes = [*self.notes, *top.notes]

    def find_sources(self, folder: Path, known: Known | None) -> None:
        """Make relative sources those of `folder`, the recipe's; one that is elsewhere is said. `known`: of the run
        whose folder that is."""
        for section in ("data", "eval"):
            sources = table.get("sources") if isinstance(table := self.values.get(section), dict) else None
            for index, item in enumerate(sources if isinstance(sources, list) else []):
                written = item.get("source") if isinstance(item, dict) else None
                if not isinstance(written, str) or not written or written.startswith((BUILTIN_PREFIX, "~")):
                    continue
                try:
                    beside, here = (folder / written).exists(), Path(written).exists()
                except (OSError, ValueError):  # no name of a file
                    continue
                if beside:
                    item["source"] = os.path.normpath(folder / written)
                    if re.search("[\ud800-\udfff]", item["source"]):  # how Python writes bytes that are no text
                        raise RecipeError(f"{folder}: a name that is not UTF-8; rename the folder")
                    continue
                place = known.place(written) if known is not None else None
                read = "the working folder" if here else ""
                if place is not None and Path(place) != Path(written):
                    item["source"], read = Placed.at(written, place), str(Path(place).parent)
                if read:
                    where = self.places.get((section, "sources", index, "source"), str(folder))
                    self.notes.append(f"{where}: {written} is read from {read}, as {folder} has none")

    def _merge(self, base: dict[str, Any], top: dict[str, Any], at: KeyPath, places: Mapping[KeyPath, str]) -> None:
        for key, value in top.items():
            path = (*at, key)
            old = base.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self._merge(old, value, path, places)
            else:
                base[key] = value
                self._forget(path)
                self.places.update({p: where for p, where in places.items() if p[: len(path)] == path})

    def _forget(self, path: KeyPath) -> None:
        for known in [known for known in self.places if known[: len(path)] == path]:
            del self.places[known]

    def override(self, text: str) -> None:
        override = parse_override(text)
        path = apply_override(self.values, override)
        if not isinstance(override.value, dict):
            self._forget(path)
        self.places[path] = override.where
        for end in range(1, len(path)):
            self.places.setdefault(path[:end], override.where)


def _text(path: Path) -> str:
    if not path.is_file():
        raise RecipeError(_missing(path))
    if is_data(path):
        raise RecipeError(Problem(str(path), data_message(path)))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(Problem(str(path), f"can't be read: {error.strerror}")) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError(Problem(f"{path}:{line}", "not UTF-8 text; save the recipe as UTF-8")) from None


def _looked_for(place: str, source: str, message: str) -> str:
    """The message about a missing source of a recipe's file, with the nearest name in both folders it may be in."""
    file, _, line = place.rpartition(":")
    missing = f"{source}: no such file"
    if not message.startswith(missing) or not line.isdigit():
        return message
    folders = dict.fromkeys((Path(file).parent / Path(source).parent, Path(source).parent))
    names = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
    near = did_you_mean(Path(source).name, names)
    return missing + (near or f" in {Path(file).parent}, where the recipe is, or the working folder")


def _beside(place: str, name: str) -> str:
    """What to say of a model that is not found but lies beside the recipe's file, where its data would be found."""
    folder = Path(place.rpartition(":")[0]).parent / name
    if place.startswith("--set ") or Path(name).is_absolute() or Path(name).exists():
        return ""
    if not (folder / "config.json").is_file():
        return ""
    return f"; a model's folder is named from the working folder: {folder if folder.is_absolute() else f'./{folder}'}"


def _missing(path: Path) -> str:
    if path.is_dir():
        inside = sorted(path.glob("*.toml"))
        near = f", did you mean {inside[0]}?" if inside else ", wanted a .toml file"
        if not inside and any(map(is_data, path.iterdir())):
            return f"{path} is a folder of data; {init_hint(path)}"
        return f"{path} is a folder{near}"
    places = [path.parent, Path("recipes")]
    files = [other for place in places if place.is_dir() for other in sorted(place.glob("*.toml"))]
    around = {str(other): other.stem for other in files if other.name != "pyproject.toml"}
    near = did_you_mean(path.stem, around.values()).removeprefix(", did you mean ").removesuffix("?")
    for file, stem in around.items():
        if stem == near:
            return f"no file {path}, did you mean {file}?"
    return f"no file {path}, wanted a recipe" + (f", as {next(iter(around))}" if around else " (a .toml file)")


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return toml.loads(text)
    except tomllib.TOMLDecodeError as error:
        if other := other_format(path, text):
            raise RecipeError(Problem(f"{path}:{other.line}", other.message)) from None
        message = str(error)
        if (match := _AT_LINE.search(message)) is not None:
            line, column = int(match[1]), int(match[2])
            message = f"{message[: match.start()]} at column {column}"
        else:
            line, column = text.rstrip().count("\n") + 1, 0
            message = message.removesuffix(_AT_END) + " before the end of the file"
        written = text.split("\n")[line - 1].split("#")[0]
        rest = written[column - 1 :] if column else written.rstrip()[-1:]
        told = _reworded(message, rest)
        if message.startswith("Expected '='") and (right := toml_line(written.rstrip())):
            told = f"found a colon, wanted an equals sign: {right}"
        raise RecipeError(Problem(f"{path}:{line}", f"not valid TOML: {told}")) from None


def _reworded(message: str, rest: str) -> str:
    """tomllib's message with what to do about it.

    `rest` is the line from the place that it names, or the last character when that is the end of the file.
    """
    if message.startswith("Cannot overwrite"):
        return "this key is given twice"
    if message.startswith("Cannot declare"):
        return "this table is given twice"
    if message.startswith("Illegal character '\\n'"):
        return "this text has no closing quote"
    return message[0].lower() + message[1:] + _advice(message, rest.strip())


def _advice(message: str, word: str) -> str:
    if not message.startswith("Invalid value"):
        return ""
    if word.lower() in ("true", "false"):
        return f": write {word.lower()}"
    if word.lower() in ("none", "null", "", "="):
        return ": TOML has no empty value, leave the key out"
    return f': text needs quotes, as "{word}"' if re.fullmatch(r"[\w./:=-]+", word) else ""
