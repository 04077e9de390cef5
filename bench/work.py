"""What a variant computes and needs: FLOPs of an update, and the planner's word on memory and time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.engines import ENGINES
from toolkit.models.shape import ModelShape
from toolkit.planning.flops import training_flops

if TYPE_CHECKING:
    from bench.variants import Variant
    from toolkit.recipe.schema import Recipe


def update_flops(
    shape: ModelShape,
    variant: Variant,
    recipe: Recipe,
    *,
    padded: float,
    width: float,
    trained: float,
    trainable: int,
    recomputed: float | None = None,
) -> float:
    """FLOPs of an update of `padded` tokens, padding included, in rows of about `width`, of which `trained` train.

    Unsloth 2026.10.7 and a loss over all logits run the head on every token. Where all weights train, each product has
    a third one for its weight's gradient. `recomputed`: share of the layers that run forward again, where it is not
    all or none as the recipe says.
    """
    whole = variant.full_logits or (ENGINES[variant.engine].whole_head and not variant.packed)
    head = padded if whole else trained
    checkpointing = bool(recipe.train.gradient_checkpointing)
    if variant.trained == "adapter":
        without, with_it = (
            training_flops(shape, padded, round(width), head, trainable, checkpointing=on) for on in (False, True)
        )
        share = float(checkpointing) if recomputed is None else recomputed
        return without + share * (with_it - without)
    frozen = training_flops(shape, padded, round(width), head, 0, checkpointing=checkpointing)
    return frozen + padded * 2 * shape.linear_parameters + head * 2 * shape.head_parameters


def expected_trainable(shape: ModelShape, variant: Variant, recipe: Recipe) -> int:
    return shape.parameters if variant.trained != "adapter" else shape.trainable_parameters(recipe.lora)


def planned(
    shape: ModelShape,
    variant: Variant,
    recipe: Recipe,
    table: Any,
    card: Any,
    precision: str,
    widest: list[int],
    *,
    flash: bool,
    padded: bool,
    checkpointed: int | None = None,
) -> tuple[float, float | None]:
    """(peak bytes, seconds an update) as `toolkit plan` would say; seconds are None where the card's rates are unknown.

    `widest`: (rows, tokens) of the micro-batch to plan memory for.
    """
    from toolkit.planning.lengths import from_table

    lengths = from_table(table)
    rows, width = widest
    trained = round(rows * width * lengths.trained)
    cuda = card.name != "cpu"
    found = memory(
        shape,
        variant,
        recipe,
        precision,
        rows,
        width,
        trained,
        cuda=cuda,
        flash=flash,
        padded=padded,
        checkpointed=checkpointed,
    )
    # on a CPU the process is measured as a whole, libraries included
    peak = found.peak if cuda else found.total
    return peak, seconds(shape, variant, recipe, lengths, card, precision)


def memory(
    shape: ModelShape,
    variant: Variant,
    recipe: Recipe,
    precision: str,
    rows: int,
    width: int,
    trained: int,
    *,
    cuda: bool,
    flash: bool = True,
    padded: bool = True,
    checkpointed: int | None = None,
) -> Any:
    """The planner's `Memory` for a micro-batch of `rows` x `width` tokens, `trained` of them with a label.

    `checkpointed`: how many layers recompute, where the recipe leaves it to the planner. `flash`: flash attention may
    be used. `padded`: rows differ in length, so that attention is given a mask.
    """
    from toolkit.planning.memory import full_memory, training_memory
    from toolkit.planning.setup import setup_of

    setup = setup_of(recipe, shape, variant.engine, precision, cuda=cuda, flash=flash)
    setup = replace(
        setup.recomputing((checkpointed or 0) if recipe.train.gradient_checkpointing == "auto" else None),
        math_attention=setup.engine.holds_scores and not flash and not padded and not setup.packed,
    )
    if variant.trained == "adapter":
        return training_memory(replace(setup, full_logits=variant.full_logits), rows, width, trained)
    weights: Any = "fp32" if variant.trained == "all fp32" else "mixed"
    setup = replace(setup, held="fp32" if precision == "fp32" else "16-bit", full_logits=not cuda)
    return full_memory(setup, rows, width, trained, weights=weights, adam8=variant.adam8)


def seconds(
    shape: ModelShape, variant: Variant, recipe: Recipe, lengths: Any, card: Any, precision: str
) -> float | None:
    """Seconds of an update by the planner; None where the card's rates are unknown or all weights train."""
    from toolkit.hardware import Gpu
    from toolkit.planning.budget import budget_for
    from toolkit.planning.cost import Work, predict, rates_of
    from toolkit.planning.micro_batches import mean_pieces
    from toolkit.planning.setup import setup_on
    from toolkit.planning.steps import updates_of

    rates = rates_of(card, precision)
    if rates is None or variant.trained != "adapter":
        return None
    train, pieces = recipe.train, None
    gpu = None if card.name == "cpu" else Gpu(card.title, card.memory, card.capability)
    setup = setup_on(recipe, shape, variant.engine, precision, gpu)
    if budget := budget_for(recipe, setup, card.memory, lengths):
        setup = setup.recomputing(budget.checkpointed)
        pieces = mean_pieces(lengths.tokens, lengths.rows(recipe.chats_per_update), budget.tokens)
    work = Work(
        setup=replace(setup, full_logits=variant.full_logits),
        lengths=lengths,
        updates=updates_of(recipe, lengths.chats),
        batch=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        pieces=pieces,
    )
    return predict(work, rates).update


def fixed_lengths(lengths: Any, tokens: int) -> Any:
    """`lengths` as if every row had `tokens` tokens."""
    import numpy as np

    return replace(lengths, tokens=np.full(1, tokens, dtype=np.int64), rows_per_chat=1.0)
