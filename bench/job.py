"""What the parent gives a worker to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.variants import Variant, find
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Job:
    """One variant to measure. `recipe` is the resolved recipe as JSON, with the variant's values in it.

    `share`: of trained tokens in fixed shapes. `cap`: bytes that torch may take, None for all. `flash`: flash
    attention may be used. `warmup` updates before the first turn. `vocab`: ids of synthetic rows are below it. `site`:
    a folder of packages before those installed. `card` and `capability`: of the card that is imposed.
    """

    variant: str
    recipe: str
    model_folder: str
    output: str
    rows: int | None
    tokens: int | None
    share: float
    vocab: int
    chats: int
    warmup: int
    cap: int | None
    flash: bool
    threads: int
    env: dict[str, str] = field(default_factory=dict)
    site: str | None = None
    card: str = ""
    capability: tuple[int, int] | None = None

    @property
    def settings(self) -> Recipe:
        return Recipe.model_validate_json(self.recipe)

    @property
    def way(self) -> Variant:
        return find(self.variant)

    def table(self) -> Any:
        """The rows to train on: the recipe's token table, or synthetic ones of a fixed shape."""
        if self.rows is not None and self.tokens is not None:
            from bench.shapes import SyntheticTable

            return SyntheticTable(self.chats, self.tokens, self.share, self.vocab)
        from toolkit.data.table import build

        return build(self.settings, Path(self.model_folder), "train", progress=False)
