"""Where the local sources of a run's recipe are read, wherever the command is started.

A run's recipe.toml names them as its user did, which is as the folder had them that the run was begun in. So
environment.json keeps, of its `data`, what each name meant (`described`) and the hash of each file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.cache import remembered_sha256
from toolkit.errors import RunError
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.records import read_object

NAME, ENVIRONMENT = "recipe.toml", "environment.json"


class Placed(str):
    """A source as a recipe names it, that is read at `place`."""

    place: str

    @classmethod
    def at(cls, name: str, place: str) -> Placed:
        made = cls(name)
        made.place = place
        return made


@dataclass(frozen=True, slots=True)
class Known:
    """What environment.json says of the local data of the run in `folder`, which was `run` when it began.

    files: SHA-256 by the name of each file. places: absolute, by the name of each source.
    """

    folder: Path
    files: dict[str, str]
    places: dict[str, str]
    run: str

    @classmethod
    def of(cls, folder: Path) -> Known:
        """Of a folder that is no run, or whose environment.json is damaged: nothing."""
        data: Any = None
        with contextlib.suppress(RunError):  # who needs the file reads it for itself
            data = read_object(folder / ENVIRONMENT).get("data")
        data = data if isinstance(data, dict) else {}
        files, places = ({} if not isinstance(one := data.get(name), dict) else one for name in ("files", "places"))
        return cls(folder, files, places, str(data.get("run") or ""))

    def place(self, name: str) -> str | None:
        """Where source `name` is: in the working folder, where the run began, or as far from the run's folder as it was
        then. Where several are there, the first that holds what the run was trained on; None where none is."""
        there: dict[Path, str] = {}
        for path in self._candidates(name):
            if Path(path).exists():
                there.setdefault(Path(path).resolve(), path)
        found = list(there.values())
        if len(found) > 1:
            found = [path for path in found if self.is_data(name, path)] or found
        return found[0] if found else None

    def is_data(self, name: str, place: str) -> bool:
        """Whether each file that the run read of source `name` is at `place` too, with the content that it had."""
        wanted = {
            Path(place, *Path(file).relative_to(_path(name)).parts): sha256
            for file, sha256 in self.files.items()
            if Path(file).is_relative_to(_path(name))
        }
        return bool(wanted) and all(path.is_file() and _hash(path) == sha256 for path, sha256 in wanted.items())

    def is_source(self, name: str, other: SourceSection) -> bool:
        """Whether `other` is what the run has as source `name`: the same place, or the same files elsewhere."""
        began = self.places.get(name, str(_path(name)))
        return os.path.realpath(began) == os.path.realpath(_path(other.place)) or self.is_data(name, other.place)

    def _candidates(self, name: str) -> list[str]:
        found, began = [str(_path(name))], self.places.get(name)
        if began is not None:
            found.append(began)
            if self.run:
                found.append(os.path.normpath(self.folder.absolute() / os.path.relpath(began, self.run)))
        return found


def described(sources: Sequence[SourceSection], run: Path) -> dict[str, Any]:
    """What `Known` reads again, of the local `sources` of the run in `run`."""
    local = {one.source: str(_path(one.place).absolute()) for one in sources if _path(one.place).exists()}
    return {"run": str(run.absolute()), "places": local}


def placed(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """`recipe`, which is made of `values`, with the places of the sources that are `Placed` in them."""
    made = {}
    for name, section in (("data", recipe.data), ("eval", recipe.eval)):
        written = (values.get(name) or {}).get("sources") or []
        if any(isinstance(one["source"], Placed) for one in written):
            pairs = zip(section.sources, (one["source"] for one in written), strict=True)
            sources = [one.read_at(text.place) if isinstance(text, Placed) else one for one, text in pairs]
            made[name] = section.model_copy(update={"sources": sources})
    return recipe.model_copy(update=made) if made else recipe


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _hash(path: Path) -> str:
    try:
        return remembered_sha256(path)
    except OSError:
        return ""
