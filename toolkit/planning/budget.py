"""How an update is cut into packed micro-batches and how many layers recompute: whatever is fastest within memory.

Seconds of an update are taken to be in proportion to

    (2 + c / L) x (tokens of an update + micro-batches x launch tokens)

A frozen weight takes part in one product forward and one backward (2), and c of L layers, checkpointed, run forward
once more. A micro-batch costs as much as an engine's `launch_tokens` before it has any: the host launches as many
kernels for few tokens as for many, or hands over a recording of them; a slower card does fewer tokens in that time.
For each c the micro-batch is as large as fits, so one update in one piece without recomputation wins wherever it fits;
where it does not, the formula weighs more pieces against more recomputation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolkit.data.table import TokenTable
from toolkit.engines.setup import Setup
from toolkit.hardware import Hardware
from toolkit.models.families import load_shape
from toolkit.planning.lengths import Lengths, from_table
from toolkit.planning.memory import packed_memory
from toolkit.planning.micro_batches import fullest_share
from toolkit.planning.setup import setup_on
from toolkit.recipe.schema import Recipe

STEP = 256  # tokens; budgets are multiples of it
USABLE = 0.90  # of the device, for what the formulas do not see: they are within 10% of what was measured
MOST_ON_CPU = 2048  # tokens: a core's products are no faster beyond, and its caches hold less
LAUNCH_RECORDED = 300  # tokens; a recording is handed over faster than kernels are launched
LAUNCH_TOKENS_CPU = 64  # which hardly waits


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of a micro-batch, and why so many.

    `checkpointed`: how many layers recompute, the first ones, and `checkpointing` why; None where the recipe says
    whether all do.
    """

    tokens: int
    reason: str
    checkpointed: int | None = None
    checkpointing: str = ""


def recomputes(recipe: Recipe, checkpointed: int | None) -> bool:
    """Whether any layer does, where a budget says in how many, or None."""
    return bool(recipe.train.gradient_checkpointing if checkpointed is None else checkpointed)


def budget_of(
    recipe: Recipe, engine: str, precision: str, hardware: Hardware, table: TokenTable, ranks: int = 1
) -> Budget | None:
    """The budget that `train.micro_batch` asks for; None where micro-batches are padded chats.

    `ranks`: how many share an update.
    """
    if recipe.train.micro_batch == "fixed":
        return None
    setup = setup_on(recipe, load_shape(recipe.model), engine, precision, hardware.gpu, ranks)
    return budget_for(recipe, setup, hardware.device_memory, from_table(table))


def budget_for(recipe: Recipe, setup: Setup, memory: int, lengths: Lengths) -> Budget | None:
    """The budget within `memory` bytes for rows of these `lengths`, as `budget_of`."""
    wanted = recipe.train.micro_batch
    if wanted == "fixed":
        return None
    longest, trained = int(lengths.tokens.max()), lengths.trained
    rows = lengths.rows(lengths.in_update(recipe.chats_per_update))
    update = fullest_share(lengths.tokens, rows, setup.ranks)
    asked = None
    if isinstance(wanted, int):
        asked = Budget(max(wanted, longest), "train.micro_batch" if wanted >= longest else "the longest row")
    if recipe.train.gradient_checkpointing != "auto":
        return asked or token_budget(setup, memory, longest=longest, update=update, trained=trained)
    expected = float(lengths.tokens.mean()) * rows / setup.ranks
    return least_recomputed(
        setup, memory, longest=longest, update=update, expected=expected, trained=trained, asked=asked
    )


def _fits(setup: Setup, memory: int, tokens: int, trained: float) -> bool:
    return packed_memory(setup, tokens, trained).total <= USABLE * memory


def least_recomputed(
    setup: Setup,
    memory: int,
    *,
    longest: int,
    update: int,
    expected: float,
    trained: float,
    asked: Budget | None = None,
) -> Budget:
    """The budget and the number of checkpointed layers that the module's formula says are fastest within `memory`.

    Arguments as `token_budget`'s; `expected` tokens has an update on average, and `asked` is a budget that is not to
    be chosen.
    """
    layers = setup.shape.num_hidden_layers
    best: tuple[float, int, Budget] | None = None
    for count in range(layers + 1):
        tried = setup.recomputing(count)
        budget = asked or token_budget(tried, memory, longest=longest, update=update, trained=trained)
        if count < layers and not _fits(tried, memory, budget.tokens, trained):
            continue
        pieces = -(-expected // budget.tokens)
        cost = (2 + count / layers) * (expected + pieces * _launch_tokens(tried))
        if best is None or cost < best[0]:
            best = (cost, count, budget)
    assert best is not None  # all layers are always tried
    _, count, budget = best
    gib = f"{memory / 2**30:.1f} GiB"
    told = {
        0: f"off: all activations of {budget.tokens:,} tokens fit {gib}",
        layers: f"on: activations of {budget.tokens:,} tokens do not fit {gib}, or cost more launches than recomputing",
    }
    some = f"on for {count} of {layers} layers: what the others keep for {budget.tokens:,} tokens fits {gib}"
    return replace(budget, checkpointed=count, checkpointing=told.get(count, some))


def _launch_tokens(setup: Setup) -> int:
    if not setup.cuda:
        return LAUNCH_TOKENS_CPU
    return round(setup.pace * (LAUNCH_RECORDED if setup.replayed else setup.engine.launch_tokens))


def token_budget(setup: Setup, memory: int, *, longest: int, update: int, trained: float) -> Budget:
    """The most tokens of a micro-batch that train within `memory` bytes.

    `longest` row and `update`, tokens that hardly any update has more of: a budget is at least one row and needs to be
    no more than an update. `trained`: share of tokens with a label.
    """
    most = -(-update // STEP) * STEP
    if not setup.cuda:
        most = min(most, MOST_ON_CPU)

    def fits(tokens: int) -> bool:
        return _fits(setup, memory, tokens, trained)

    tokens = most
    while tokens > STEP and not fits(tokens):
        tokens -= STEP
    tokens = max(tokens, longest)
    if not fits(tokens):
        least = "the longest row" if tokens == longest else "the fewest"
        return Budget(tokens, f"{least}, which the formulas say may not fit {memory / 2**30:.1f} GiB")
    if tokens >= update:
        return Budget(tokens, f"a whole update fits: hardly any has more than {update:,} tokens")
    if not setup.cuda and tokens == MOST_ON_CPU:
        return Budget(tokens, "more make no CPU faster")
    return Budget(tokens, f"as many as fit {memory / 2**30:.1f} GiB")
