"""What training starts from, once the model and the data are there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from toolkit.data.table import TokenTable
from toolkit.engines.base import Loaded
from toolkit.planning.budget import Budget
from toolkit.planning.ran_out import Case, Known
from toolkit.planning.steps import Updates
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Tables:
    """The token tables of what is trained on and of what is held out."""

    train: TokenTable
    evaluation: TokenTable | None = None


@dataclass(frozen=True)
class Prepared:
    """A recipe with its model loaded and its chats tokenised.

    `budget`: how an update is cut into packed micro-batches; None where micro-batches are padded chats. `case`: what
    memory that runs out is kept by for later runs, and `ran_out` what is known of it from earlier ones; None where
    neither is asked for.
    """

    recipe: Recipe
    loaded: Loaded
    tables: Tables
    updates: Updates
    budget: Budget | None = None
    case: Case | None = None
    ran_out: Known | None = None

    @property
    def precision(self) -> str:
        """Of the matrix products: bf16, fp16 or anything else for no autocasting."""
        return self.loaded.report.precision.value

    @cached_property
    def cuda(self) -> bool:
        # PyTorch takes seconds to import, and Unsloth has to come before it
        import torch

        return torch.cuda.is_available()
