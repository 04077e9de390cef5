"""From a recipe, a model, an engine and a device to what memory and time are predicted from."""

from __future__ import annotations

from dataclasses import replace

from toolkit.engines.precision import weight_dtype
from toolkit.engines.registry import ENGINES
from toolkit.engines.setup import Setup
from toolkit.hardware import Gpu
from toolkit.models.shape import ModelShape
from toolkit.planning.cards import CARDS, Card, SeenGpu
from toolkit.planning.cost import rates_of
from toolkit.recipe.schema import Recipe


def setup_of(
    recipe: Recipe,
    shape: ModelShape,
    engine: str,
    precision: str,
    *,
    cuda: bool,
    flash: bool = True,
    pace: float = 1.0,
) -> Setup:
    """How a recipe trains on an engine in a precision. Where `train.gradient_checkpointing` is "auto" all layers
    recompute until a budget says how many (`Setup.recomputing`)."""
    train, runs = recipe.train, ENGINES[engine]
    dropped = 0
    if recipe.lora.lora_dropout:
        targets = shape.lora_targets(recipe.lora.target_modules)
        dropped = sum(fan_in for _, fan_in, _ in targets) // shape.num_hidden_layers
    single = weight_dtype(recipe, precision) == "float32"
    return Setup(
        shape=shape,
        engine=runs,
        held="nf4" if recipe.model.load_in_4bit else "fp32" if single else "16-bit",
        trainable=shape.trainable_parameters(recipe.lora),
        checkpointing=runs.checkpointing(recipe),
        optim=train.optim,
        element=4 if precision == "fp32" else 2,
        dropped=dropped,
        cuda=cuda,
        flash=flash,
        packed=train.micro_batch != "fixed",
        products=runs.products(recipe),
        dynamic=train.compile == "dynamic",
        recorded=cuda and runs.records(recipe),
        filled=train.pad_to_multiple_of,
        pace=pace,
    )


def setup_on(recipe: Recipe, shape: ModelShape, engine: str, precision: str, gpu: Gpu | None, ranks: int = 1) -> Setup:
    """The same on a GPU, or without one on a CPU; `ranks`: on so many of them."""
    if gpu is None:
        setup = setup_of(recipe, shape, engine, precision, cuda=False, flash=False)
    else:
        setup = setup_of(recipe, shape, engine, precision, cuda=True, flash=card_of(gpu).flash, pace=pace_of(gpu))
    return replace(setup, ranks=ranks)


def pace_of(gpu: Gpu) -> float:
    """How fast products are on a GPU, those of an H200 being 1; 1 where it is not known."""
    card = card_of(gpu)
    rates, fastest = rates_of(card, "bf16" if card.flash else "fp16"), rates_of(CARDS["h200"], "bf16")
    return rates.products / fastest.products if rates is not None and fastest is not None else 1.0


def card_of(gpu: Gpu) -> Card:
    """The card that the planner knows a GPU as."""
    return SeenGpu(gpu.name, gpu.memory, gpu.capability, "").card
