"""A recipe whose model and data sets of the hub stay where they are, whatever their branches do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.data.commits import commit_of
from toolkit.data.sources import local_files

if TYPE_CHECKING:
    from toolkit.recipe.places import Known
    from toolkit.recipe.schema import Recipe, SourceSection


def pinned(recipe: Recipe) -> Recipe:
    """`recipe` with the commit that each of its data sets of the hub is at. Raises `DataError` for missing files."""
    return _with(recipe, _found)


def pinned_as(recipe: Recipe, other: Recipe) -> Recipe:
    """`recipe` with the commits that the same model and data sets have in `other`, a run's own."""
    known = {_name(one): one.commit for one in (*other.data.sources, *other.eval.sources)}
    made = _with(recipe, lambda source: known.get(_name(source)))
    mine, theirs = made.model, other.model
    same = (mine.name, mine.revision) == (theirs.name, theirs.revision)
    return with_model_at(made, theirs.commit) if same else made


def named_as(recipe: Recipe, other: Recipe, known: Known) -> Recipe:
    """`recipe` with the names that its local data has in `other`, a run's own, of which `known` is: another folder's
    user calls the same files otherwise."""
    made = {}
    for part, mine, theirs in (("data", recipe.data, other.data), ("eval", recipe.eval, other.eval)):
        sources = list(mine.sources)
        for index, (one, own) in enumerate(zip(mine.sources, theirs.sources, strict=False)):
            if one.source != own.source and not one.builtin and known.is_source(own.source, one):
                sources[index] = one.model_copy(update={"source": own.source}).read_at(one.place)
        made[part] = mine.model_copy(update={"sources": sources})
    return recipe.model_copy(update=made)


def with_model_at(recipe: Recipe, commit: str | None) -> Recipe:
    """`recipe` with the commit that its model is at, unless it says one itself."""
    if recipe.model.commit is not None:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"commit": commit})})


def _with(recipe: Recipe, commit: Callable[[SourceSection], str | None]) -> Recipe:
    made = {}
    for part, section in (("data", recipe.data), ("eval", recipe.eval)):
        sources = [one.model_copy(update={"commit": one.commit or commit(one)}) for one in section.sources]
        made[part] = section.model_copy(update={"sources": sources})
    return recipe.model_copy(update=made)


def _found(source: SourceSection) -> str | None:
    return None if source.builtin or local_files(source.place) else commit_of(source)


def _name(source: SourceSection) -> tuple[str, str | None, str | None]:
    return source.source, source.config, source.revision
