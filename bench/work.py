"""What a variant computes and needs: FLOPs of an update, and the planner's word on memory and time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
    head = padded if (variant.engine == "unsloth" and not variant.packed) or variant.full_logits else trained
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
    from toolkit.planning.memory import Setup, full_memory, training_memory

    train, lora = recipe.train, recipe.lora
    dropped = sum(fan_in for _, fan_in, _ in shape.lora_targets(lora.target_modules)) // shape.num_hidden_layers
    fp32 = precision == "fp32"
    setup = Setup(
        shape=shape,
        engine=variant.engine,
        held="nf4" if variant.four_bit else "fp32" if fp32 else "16-bit",
        trainable=shape.trainable_parameters(lora),
        checkpointing=_checkpointing(train.gradient_checkpointing, checkpointed),
        checkpointed=checkpointed,
        packed=variant.packed,
        float8=train.products == "float8",
        optim=train.optim,
        element=4 if fp32 else 2,
        dropped=dropped if lora.lora_dropout else 0,
        cuda=cuda,
        math_attention=variant.engine == "peft" and not flash and not padded and not variant.packed,
    )
    if variant.trained == "adapter":
        return training_memory(setup, rows, width, trained, logits=variant.full_logits)
    return full_memory(
        setup,
        rows,
        width,
        trained,
        weights="fp32" if variant.trained == "all fp32" else "mixed",
        logits=not cuda,
        adam8=variant.adam8,
    )


def _checkpointing(asked: bool | str, checkpointed: int | None) -> Any:
    if asked == "auto":
        return "on" if checkpointed else "off"
    return {True: "on", False: "off", "unsloth": "offloaded"}[asked]


def seconds(
    shape: ModelShape, variant: Variant, recipe: Recipe, lengths: Any, card: Any, precision: str
) -> float | None:
    """Seconds of an update by the planner; None where the card's rates are unknown or all weights train."""
    from toolkit.hardware import Gpu
    from toolkit.planning.budget import budget_for, pace_of, setup_of
    from toolkit.planning.cost import Work, predict, rates_of, way_of
    from toolkit.planning.micro_batches import mean_pieces
    from toolkit.planning.steps import updates_of

    rates = rates_of(card, precision)
    if rates is None or variant.trained != "adapter":
        return None
    train = recipe.train
    recomputed, pieces = float(bool(train.gradient_checkpointing)), None
    if variant.packed:
        cuda = card.name != "cpu"
        setup = setup_of(recipe, shape, variant.engine, precision, cuda=cuda)
        setup = replace(setup, pace=pace_of(Gpu(card.title, card.memory, card.capability) if cuda else None))
        budget = budget_for(recipe, setup, card.memory, lengths)
        assert budget is not None  # packed
        pieces = mean_pieces(lengths.tokens, lengths.rows(recipe.chats_per_update), budget.tokens)
        recomputed = float(bool(train.gradient_checkpointing))
        if budget.checkpointed is not None:
            recomputed = budget.checkpointed / shape.num_hidden_layers
    way = way_of(recipe, shape, variant.engine, precision, card, recomputed)
    work = Work(
        way=replace(way, full_logits=variant.full_logits),
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
