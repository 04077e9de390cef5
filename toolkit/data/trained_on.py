"""Whether the local data of a run is still what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.data.keys import source_files
from toolkit.errors import RunError, did_you_mean
from toolkit.recipe.places import Known
from toolkit.recipe.schema import Recipe, SourceSection


def check_trained_on(recipe: Recipe, folder: Path, instead: str = "") -> None:
    """Raise `RunError` where a data file of the run in `folder` is another or gone, by the name that `recipe`, which is
    the run's, has for it, and `DataError` where one can't be read. `instead` ends the message: another way on.

    A run that keeps no hashes of files, as one of built-in chats, passes.
    """
    known = Known.of(folder)
    if not known.files:
        return
    sources = [*recipe.data.sources, *recipe.eval.sources]
    for name in known.files:
        if (gone := _gone(name, sources, known)) is not None:
            raise RunError(f"{name}: {folder} was trained on this file, and it is {gone}{instead}")
    found = source_files(sources)
    for name in [*known.files, *found]:
        then, now = known.files.get(name), found.get(name)
        if then != now:
            was = f"SHA-256 {then} wanted, {now} found" if then else "it was not there then"
            raise RunError(f"{name}: not the data that {folder} was trained on ({was}){instead}")


def _gone(name: str, sources: Sequence[SourceSection], known: Known) -> str | None:
    """Where file `name` is not, with the nearest name there is; None where it is there."""
    path = began = Path(name)
    for source in sources:
        named = Path(source.source).expanduser()
        if path.is_relative_to(named):
            rest = path.relative_to(named)
            began = Path(known.places.get(source.source, named)) / rest
            path = Path(source.place).expanduser() / rest
            break
    if path.is_file():
        return None
    near = did_you_mean(began.name, [one.name for one in began.parent.iterdir()]) if began.parent.is_dir() else ""
    if Path(name).is_absolute():
        return f"not there any more{near}"
    if path.is_absolute():
        return f"not at {path} any more{near}"
    if not began.is_absolute():
        return f"not in the working folder{near}; go to the folder that the run began in"
    return f"neither in the working folder nor at {began} any more{near}"
