"""Step time on a card that is not here, predicted. Never a measurement, and always shown as a prediction.

    seconds = FLOPs / (e x FLOP/s of the card) + bytes / (e x bytes/s of the card)

FLOPs are those of an update's matrix products, padding included. Bytes are what the kernels between them move: the
weights once a pass and micro-batch, and every stored activation written, read forward and read backward. Products and
the kernels between them run one after the other, so their times add up. Rates are the two cards' data sheets'; e is
the part of its data sheet that the matrix product measured beside the run reached on the card that is here.

`least` has the other card at its data sheet's rates with one time hidden behind the other. `most` scales the time
measured here by the worse of the two cards' ratios, as if nothing of it had been waiting for the host. `here` is the
same formula for the card that is here, and `error` how far that is from what was measured: the only check there is.
Where the host sets the pace here (`error` far below 0), the other, slower card is likely not to be held up by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.planning.architecture import ModelShape
from toolkit.planning.cards import Card

if TYPE_CHECKING:
    from bench.results import Results
    from bench.variants import Variant
    from toolkit.recipe.schema import Recipe

TOUCHES = 3  # an activation that is kept is written once and read twice


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of an update on another card; see the module's text."""

    seconds: float
    least: float
    most: float
    here: float
    error: float


def predict(
    flops: float, moved: float, efficiency: float, measured: float, here: Card, there: Card
) -> Prediction | None:
    """`flops` and `moved` bytes of an update that took `measured` seconds on `here`; None where a rate is unknown."""
    if not (here.half and here.bandwidth and there.half and there.bandwidth and efficiency > 0):
        return None

    def formula(card: Card) -> float:
        assert card.half and card.bandwidth
        return (flops / (card.half * 1e12) + moved / (card.bandwidth * 1e9)) / efficiency

    slower = max(here.half / there.half, here.bandwidth / there.bandwidth)
    return Prediction(
        seconds=formula(there),
        least=max(flops / (there.half * 1e12), moved / (there.bandwidth * 1e9)),
        most=measured * slower,
        here=formula(here),
        error=formula(here) / measured - 1,
    )


def moved_bytes(shape: ModelShape, variant: Variant, recipe: Recipe, padded: float) -> float:
    """Bytes that an update over `padded` tokens moves, products apart."""
    from toolkit.planning.memory import Setup, layer_activations, weight_bytes

    held = "nf4" if variant.four_bit else "16-bit"
    lora = recipe.lora
    targets = shape.lora_targets(lora.target_modules)
    dropped = sum(fan_in for _, fan_in, _ in targets) // shape.num_hidden_layers if lora.lora_dropout else 0
    setup = Setup(shape, variant.engine, held, 0, "off", dropped=dropped)  # type: ignore[arg-type]
    again = 1 if recipe.train.gradient_checkpointing else 0
    pieces = 1 if variant.packed else recipe.train.gradient_accumulation_steps
    weights = weight_bytes(shape, held) * (2 + again) * pieces  # type: ignore[arg-type]
    activations = padded * shape.num_hidden_layers * layer_activations(setup) * (TOUCHES + again)
    return weights + activations


def elsewhere(
    shape: ModelShape,
    variant: Variant,
    recipe: Recipe,
    results: Results,
    name: str,
    padded: float,
    here: Card,
    there: Card,
) -> Prediction | None:
    """The prediction for a variant that was measured here, or None where a rate is missing."""
    seconds, product = results.seconds(name), results.product(name)
    if seconds is None or not product or not here.half:
        return None
    efficiency = min(1.0, product / (here.half * 1e12))
    moved = moved_bytes(shape, variant, recipe, padded)
    return predict(results.arms[name].flops, moved, efficiency, seconds.median, here, there)
