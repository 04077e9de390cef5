"""Where the chats of each part come from: sources of their own, or the training sources, divided.

Names and numbers of the recipe alone: no chat is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from toolkit.chats import BUILTIN

if TYPE_CHECKING:
    from toolkit.recipe.schema import Recipe, SourceSection

Part = Literal["train", "eval"]
HELD_OUT_SPLITS = ("phrasing", "tools")


def parts_of(recipe: Recipe) -> tuple[Part, ...]:
    """The parts that a recipe's chats have."""
    return ("train", "eval") if recipe.eval.sources or recipe.eval.holdout else ("train",)


def divided(recipe: Recipe) -> bool:
    """Whether held-out chats are taken from the training sources, so that both parts come of the same rows."""
    return bool(recipe.eval.holdout) and not recipe.eval.sources and not held_out_sources(recipe)


def sources_of(recipe: Recipe, part: Part) -> Sequence[SourceSection]:
    """What is read for a part: all of it is in the part, unless the recipe's chats are `divided`."""
    if part == "train" or divided(recipe):
        return recipe.data.sources
    return recipe.eval.sources or held_out_sources(recipe)


def held_out_sources(recipe: Recipe) -> list[SourceSection]:
    """The built-in held-out splits with the options of the training sources; an empty list where they don't apply."""
    sources = recipe.data.sources
    if recipe.eval.sources or any(one.source != BUILTIN or one.split != "train" for one in sources):
        return []
    wanted = recipe.eval.holdout
    total = int(wanted) if wanted >= 1 else round(wanted * sum(one.size for one in sources))
    shares = len(sources) * len(HELD_OUT_SPLITS)
    found = []
    for index, (source, split) in enumerate((one, split) for split in HELD_OUT_SPLITS for one in sources):
        size = total // shares + (index < total % shares)
        if size:
            plain = {"weight": 1.0, "limit": None, "decisions": 0.0, "rationales": False, "purposes": 0.0}
            found.append(source.model_copy(update={"split": split, "size": size, **plain}))
    return found
