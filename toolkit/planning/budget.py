"""How many tokens a packed micro-batch may have: as many as fit the device, by the memory formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import EngineError
from toolkit.planning.architecture import load_shape
from toolkit.planning.memory import Setup, training_memory
from toolkit.planning.plan import setup_of

if TYPE_CHECKING:
    from toolkit.data.table import TokenTable
    from toolkit.hardware import Hardware
    from toolkit.recipe.schema import Recipe

STEP = 256  # tokens; budgets are multiples of it
USABLE = 0.90  # of the device, for what the formulas do not see: they are within 10% of what was measured
MOST_ON_CPU = 2048  # tokens: a core's products are no faster beyond, and its caches hold less


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of a micro-batch, and why so many."""

    tokens: int
    reason: str


def check_packing(recipe: Recipe, engine: str) -> None:
    """Raise `EngineError` where chats shall be packed and the engine that was chosen can't."""
    if engine != "peft" and recipe.train.micro_batch != "fixed":
        raise EngineError(
            f"train.micro_batch: {recipe.train.micro_batch!r} packs chats with the peft engine only, and the engine is "
            f"{engine}; --set train.engine=peft, or --set train.micro_batch=fixed"
        )


def budget_of(recipe: Recipe, engine: str, precision: str, hardware: Hardware, table: TokenTable) -> Budget | None:
    """The budget that `train.micro_batch` asks for; None where micro-batches are padded chats."""
    wanted = recipe.train.micro_batch
    if wanted == "fixed":
        return None
    longest = int(table.lengths.max())
    if isinstance(wanted, int):
        return Budget(max(wanted, longest), "train.micro_batch" if wanted >= longest else "the longest row")
    rows = table.n_rows / max(1, table.n_chats)
    return token_budget(
        setup_of(recipe, load_shape(recipe.model), engine, precision, cuda=hardware.gpu is not None),
        hardware.gpu.memory if hardware.gpu is not None else hardware.memory,
        longest=longest,
        update=round(longest * recipe.chats_per_update * max(1.0, rows)),
        trained=float(table.trained.sum() / table.lengths.sum()),
    )


def token_budget(setup: Setup, memory: int, *, longest: int, update: int, trained: float) -> Budget:
    """The most tokens of a micro-batch that train within `memory` bytes.

    `longest` row and `update`, the most tokens that an update can have: a budget is at least one row and needs to be
    no more than an update. `trained`: share of tokens with a label.
    """
    most = -(-update // STEP) * STEP
    if not setup.cuda:
        most = min(most, MOST_ON_CPU)
    room = USABLE * memory

    def fits(tokens: int) -> bool:
        return training_memory(setup, 1, tokens, round(tokens * trained)).total <= room

    tokens = most
    while tokens > STEP and not fits(tokens):
        tokens -= STEP
    tokens = max(tokens, longest)
    if tokens >= update:
        return Budget(tokens, f"a whole update of at most {update:,} tokens fits")
    if not setup.cuda and tokens == MOST_ON_CPU:
        return Budget(tokens, "more make no CPU faster")
    if not fits(tokens):
        return Budget(tokens, f"the longest row, which the formulas say may not fit {memory / 2**30:.1f} GiB")
    return Budget(tokens, f"as many as fit {memory / 2**30:.1f} GiB")
