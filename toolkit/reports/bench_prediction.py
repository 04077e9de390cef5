"""Step time on a card that is not here, predicted. Never a measurement, and always shown as a prediction.

The formula is `toolkit.planning.kernel_time`, the same that `toolkit plan` goes by, over the tokens and micro-batches
that were measured here. It is computed from the stored rows whenever they are read, so that a page made today from
rows of last month has today's formula. `here` is the same formula for the card that is here and `error` how far that is
from what was measured: a check of the formula, not of what it takes the other card to sustain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolkit.bench_results import Arm, Results
from toolkit.engines import ENGINES
from toolkit.engines.setup import Products, Setup
from toolkit.models.families import FAMILIES, KNOWN, UNKNOWN
from toolkit.models.shape import ModelShape
from toolkit.planning.cards import CARDS, Card
from toolkit.planning.cost import doubt, rates_of
from toolkit.planning.kernel_time import UPDATE_GAP, Rates, Seconds, training

UNEVEN = 4 / 3  # rows spread evenly from nothing to twice their mean cost attention as much as equal ones this long


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of an update on another card: what is taken, and with products at the most and the least that they are
    thought to sustain. `kinds`: where they go. `here` and `error`: see the module's text."""

    seconds: float
    least: float
    most: float
    kinds: Seconds
    here: float
    error: float


def predicted(results: Results, name: str) -> Prediction | None:
    """The prediction for the card whose profile was imposed; None where nothing is, or a rate or size is not known.

    Not for all weights trained, nor where attention was plain products that hold all scores, of which nothing is known
    on another card.
    """
    there = target(results)
    here = CARDS.get(results.run["card"])
    seconds, arm = results.seconds(name), results.arms.get(name)
    shape = shape_of(results)
    if there is None or here is None or seconds is None or arm is None or shape is None:
        return None
    if arm.trained != "adapter" or holds_scores(results, arm, there):
        return None
    flash = there.flash
    rates, own = rates_of(there, arm.precision), rates_of(here, arm.precision, flash=flash)
    if rates is None or own is None:
        return None
    least, most = doubt(there)
    found = update(results, arm, shape, rates, flash=flash)
    known = update(results, arm, shape, own, flash=flash).total
    return Prediction(
        seconds=found.total,
        least=update(results, arm, shape, _scaled(rates, most), flash=flash).total,
        most=update(results, arm, shape, _scaled(rates, least), flash=flash).total,
        kinds=found,
        here=known,
        error=known / seconds.median - 1,
    )


def target(results: Results) -> Card | None:
    """The card that was imposed on the one that is here; None where none was."""
    return CARDS.get(results.run["profile"]) if results.run.get("cap") is not None else None


def holds_scores(results: Results, arm: Arm, card: Card) -> bool:
    """Whether SDPA held all scores: rows of one length bring no mask, and there was no flash attention."""
    return (
        ENGINES[arm.engine].holds_scores and not card.flash and results.run["shape"] != "real" and not arm.token_budget
    )


def shape_of(results: Results) -> ModelShape | None:
    """The model's sizes: those that the run kept, or the known model with as many parameters."""
    if kept := results.run.get("model_shape"):
        family = FAMILIES.get(kept["model_type"], UNKNOWN)
        return ModelShape.from_dict({"qk_norm": family.qk_norm, **kept})  # which earlier versions did not keep
    count = results.run.get("parameters")
    return next((shape for shape in KNOWN.values() if shape.parameters == count), None)


def products_of(variant: str) -> Products:
    """`train.products` of a variant by the settings behind its name, else by the name, as compiled-fused-autockpt."""
    listed, *own = variant.split("+")
    words = [setting.removeprefix("train.products=").strip('"') for setting in own if "train.products=" in setting]
    words = words or listed.split("-")
    return "fused" if "fused" in words else "float8" if "float8" in words else "separate"


def update(results: Results, arm: Arm, shape: ModelShape, rates: Rates, *, flash: bool) -> Seconds:
    """An update of a variant, of as many tokens and micro-batches as its measured ones had."""
    timed = results.timed(arm.variant)
    padded = sum(one.padded_tokens for one in timed) / len(timed)
    real = sum(one.real_tokens for one in timed) / len(timed)
    packed = arm.token_budget is not None
    pieces = max(1, -(-padded // arm.token_budget)) if arm.token_budget else arm.accumulation
    width = arm.width or padded / results.run["chats_per_update"]
    if not arm.width and packed and results.run["shape"] == "real":
        width *= UNEVEN
    setup = Setup(
        shape=shape,
        engine=ENGINES[arm.engine],
        held="nf4" if arm.four_bit else "16-bit",
        trainable=arm.trainable,
        checkpointing="off" if arm.checkpointing == "off" else "on",
        products=products_of(arm.variant),
        dropped=int(arm.dropout > 0),
        flash=flash,
        packed=packed,
        recorded=arm.recorded > 0,
        element=4 if arm.precision == "fp32" else 2,
        full_logits=arm.full_logits,
    )
    setup, trained = setup.recomputing(arm.checkpointed_wanted), real * results.run["trained_share"]
    one = training(setup, rates, padded / pieces, width, trained / pieces)
    return one.times(pieces, UPDATE_GAP)


def _scaled(rates: Rates, share: float) -> Rates:
    return replace(rates, products=rates.products * share, attention=rates.attention * share)
