"""Which settings make a recipe fit a card, and how many chats of a padded micro-batch do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolkit.engines.setup import Setup
from toolkit.planning.budget import USABLE
from toolkit.planning.cards import Card
from toolkit.planning.lengths import Lengths
from toolkit.planning.memory import Memory, packed_memory, training_memory
from toolkit.recipe.schema import Recipe

MOST_CHATS = 1024  # the largest micro-batch that is tried


def padded_memory(setup: Setup, lengths: Lengths, chats: int) -> Memory:
    """Peak of the widest micro-batch: as many chats, all padded to the longest row."""
    rows, width = lengths.rows(chats), lengths.longest
    return training_memory(setup, rows, width, int(rows * width * lengths.trained))


def largest_batch(setup: Setup, lengths: Lengths, card: Card) -> int:
    """The most chats of a micro-batch that fit, by bisection (memory grows with chats)."""
    low, high = 0, MOST_CHATS
    while low < high:
        middle = (low + high + 1) // 2
        if padded_memory(setup, lengths, middle).total <= card.memory:
            low = middle
        else:
            high = middle - 1
    return low


def same_update(recipe: Recipe, largest: int) -> tuple[int, int]:
    """(chats a micro-batch, micro-batches) that make the recipe's update with at most `largest` chats at a time."""
    chats = recipe.chats_per_update
    batch = max(n for n in range(1, min(largest, chats) + 1) if chats % n == 0)
    return batch, chats // batch


def advice(recipe: Recipe, setup: Setup, lengths: Lengths, card: Card) -> tuple[str, ...]:
    """The fewest settings that make it fit, the ones that cost least first: smaller pieces of the same update, then
    recomputation, then 4-bit weights, then shorter chats. Packed pieces are as small as they can be already."""
    settings: list[str] = []
    for options, changed, fewer in _savings(recipe, setup):
        settings += options
        setup, cut = changed, fewer
        if recipe.train.micro_batch != "fixed":
            if packed_memory(setup, cut, lengths.trained).total <= USABLE * card.memory:
                smaller = ["train.micro_batch=auto"] if isinstance(recipe.train.micro_batch, int) else []
                return (*settings, *smaller)
            continue
        most = largest_batch(setup, _cut(lengths, cut), card)
        if most:
            batch, steps = same_update(recipe, most)
            if batch < recipe.train.per_device_train_batch_size:
                settings += [f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={steps}"]
            return tuple(settings)
    return ()


def _savings(recipe: Recipe, setup: Setup) -> Iterator[tuple[list[str], Setup, int]]:
    length = recipe.train.max_length
    # "auto" goes by all the memory of a machine, of which less may be free
    all_layers = recipe.train.gradient_checkpointing == "auto"
    yield (["train.gradient_checkpointing=true"] if all_layers else []), setup, length
    if setup.checkpointing == "off":
        setup = replace(setup, checkpointing="on")
        yield ["train.gradient_checkpointing=true"], setup, length
    if setup.held != "nf4" and setup.cuda:
        setup = replace(setup, held="nf4")
        yield ["model.load_in_4bit=true"], setup, length
    if length > 512:
        yield [f"train.max_length={length // 2}"], setup, length // 2


def _cut(lengths: Lengths, longest: int) -> Lengths:
    return replace(lengths, tokens=lengths.tokens.clip(max=longest))
