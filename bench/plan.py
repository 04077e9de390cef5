"""What a variant computes and needs: FLOPs of an update, and the planner's word on memory and time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bench.variants import Variant
from toolkit.engines import ENGINES
from toolkit.hardware import Gpu
from toolkit.models.shape import ModelShape
from toolkit.planning.budget import budget_for
from toolkit.planning.cards import Card
from toolkit.planning.cost import Work, predict, rates_of
from toolkit.planning.flops import training_flops
from toolkit.planning.lengths import Lengths, from_table
from toolkit.planning.memory import Memory, full_memory, training_memory
from toolkit.planning.micro_batches import mean_pieces
from toolkit.planning.setup import setup_of, setup_on
from toolkit.planning.steps import updates_of
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """A variant by its resolved recipe, of a model of this shape."""

    shape: ModelShape
    variant: Variant
    recipe: Recipe

    @property
    def trainable(self) -> int:
        """Parameters."""
        shape = self.shape
        return shape.trainable_parameters(self.recipe.lora) if self.variant.trained == "adapter" else shape.parameters

    def flops(
        self, *, padded: float, width: float, trained: float, trainable: int, recomputed: float | None = None
    ) -> float:
        """FLOPs of an update of `padded` tokens, padding included, in rows of about `width`, of which `trained` train.

        Unsloth 2026.10.7 and a loss over all logits run the head on every token. Where all weights train, each product
        has a third one for its weight's gradient. `recomputed`: share of the layers that run forward again, where it is
        not all or none as the recipe says.
        """
        shape, variant = self.shape, self.variant
        whole = variant.full_logits or (ENGINES[variant.engine].whole_head and not variant.packed)
        head = padded if whole else trained
        checkpointing = bool(self.recipe.train.gradient_checkpointing)
        if variant.trained == "adapter":
            without, with_it = (
                training_flops(shape, padded, round(width), head, trainable, checkpointing=on) for on in (False, True)
            )
            share = float(checkpointing) if recomputed is None else recomputed
            return without + share * (with_it - without)
        frozen = training_flops(shape, padded, round(width), head, 0, checkpointing=checkpointing)
        return frozen + padded * 2 * shape.linear_parameters + head * 2 * shape.head_parameters

    def memory(
        self,
        precision: str,
        rows: int,
        width: int,
        trained: int,
        *,
        cuda: bool,
        flash: bool = True,
        padded: bool = True,
        checkpointed: int | None = None,
    ) -> Memory:
        """For a micro-batch of `rows` x `width` tokens, `trained` of them with a label.

        `checkpointed`: how many layers recompute, where the recipe leaves it to the planner. `flash`: flash attention
        may be used. `padded`: rows differ in length, so that attention is given a mask.
        """
        setup = setup_of(self.recipe, self.shape, self.variant.engine, precision, cuda=cuda, flash=flash)
        setup = replace(
            setup.recomputing((checkpointed or 0) if self.recipe.train.gradient_checkpointing == "auto" else None),
            math_attention=setup.engine.holds_scores and not flash and not padded and not setup.packed,
        )
        if self.variant.trained == "adapter":
            return training_memory(replace(setup, full_logits=self.variant.full_logits), rows, width, trained)
        weights: Literal["fp32", "mixed"] = "fp32" if self.variant.trained == "all fp32" else "mixed"
        setup = replace(setup, held="fp32" if precision == "fp32" else "16-bit", full_logits=not cuda)
        return full_memory(setup, rows, width, trained, weights=weights, adam8=self.variant.adam8)

    def seconds(self, lengths: Lengths, card: Card, precision: str) -> float | None:
        """Seconds of an update; None where the card's rates are unknown or all weights train."""
        rates = rates_of(card, precision)
        if rates is None or self.variant.trained != "adapter":
            return None
        recipe, pieces = self.recipe, None
        gpu = None if card.name == "cpu" else Gpu(card.title, card.memory, card.capability)
        setup = setup_on(recipe, self.shape, self.variant.engine, precision, gpu)
        if budget := budget_for(recipe, setup, card.memory, lengths):
            setup = setup.recomputing(budget.checkpointed)
            pieces = mean_pieces(lengths.tokens, lengths.rows(recipe.chats_per_update), budget.tokens)
        work = Work(
            setup=replace(setup, full_logits=self.variant.full_logits),
            lengths=lengths,
            updates=updates_of(recipe, lengths.chats),
            batch=recipe.train.per_device_train_batch_size,
            accumulation=recipe.train.gradient_accumulation_steps,
            pieces=pieces,
        )
        return predict(work, rates).update

    def predicted(
        self,
        table: Any,
        card: Card,
        precision: str,
        widest: list[int],
        *,
        flash: bool,
        padded: bool,
        checkpointed: int | None,
    ) -> tuple[float, float | None]:
        """(peak bytes, seconds an update) as `toolkit plan` would say over the rows of `table`; arguments as above.

        `widest`: (rows, tokens) of the micro-batch to plan memory for.
        """
        lengths = from_table(table)
        rows, width = widest
        trained = round(rows * width * lengths.trained)
        cuda = card.name != "cpu"
        memory = self.memory(
            precision, rows, width, trained, cuda=cuda, flash=flash, padded=padded, checkpointed=checkpointed
        )
        # on a CPU the process is measured as a whole, libraries included
        return memory.peak if cuda else memory.total, self.seconds(lengths, card, precision)


def fixed_lengths(lengths: Lengths, tokens: int) -> Lengths:
    """`lengths` as if every row had `tokens` tokens."""
    return replace(lengths, tokens=np.full(1, tokens, dtype=np.int64), rows_per_chat=1.0)
