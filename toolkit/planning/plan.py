"""`toolkit plan`: what a run needs, before it is started. Loads no model and imports neither torch nor transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import psutil

from toolkit.engines import measured
from toolkit.engines.base import Choice, Has, is_installed
from toolkit.engines.precision import choose_precision
from toolkit.engines.requirements import check_hardware
from toolkit.engines.setup import Setup
from toolkit.errors import EngineError, InputError
from toolkit.hardware import Gpu, Hardware, cpu_flags, cpu_name, usable_cores
from toolkit.models.families import load_shape
from toolkit.models.shape import ModelShape
from toolkit.planning import lengths as lengths_module
from toolkit.planning.advice import advice, largest_batch, padded_memory
from toolkit.planning.budget import STEP, Budget, budget_for
from toolkit.planning.cards import CARDS, Card, cpu_card, find_card, seen_gpus
from toolkit.planning.cost import Time, Work, dollars, predict, range_of, rates_of
from toolkit.planning.decode_time import decoding_seconds, decodings
from toolkit.planning.kernel_time import Rates
from toolkit.planning.lengths import Lengths
from toolkit.planning.memory import Memory, full_memory, packed_memory
from toolkit.planning.ran_out import Case, Known, known
from toolkit.planning.setup import setup_on
from toolkit.planning.sharing import Sharing, check_share, sharing
from toolkit.planning.steps import Updates, fitted, fitting, updates_of
from toolkit.recipe import LoadedRecipe
from toolkit.recipe.schema import Recipe

PACKED = {"micro_batch": "auto", "gradient_checkpointing": "auto"}  # train's keys that are advised where it helps
A_DAY = 24 * 3600.0  # of training on these cores, in seconds: a recipe that takes longer is not meant for them


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `toolkit plan` says. Memory in bytes, time in seconds, price in dollars an hour.

    `largest`: the most chats of a micro-batch that fit, 0 when not even one does. `advice`: the --set options that make
    it fit, empty when it fits or nothing does. `budget`: tokens of a packed micro-batch, None where chats are padded;
    `pieces`: how many of them an update has in the mean. `packed_seconds`: predicted for the same updates packed, where
    they are padded and a GPU is planned for. `least`: (bytes predicted, tokens of a micro-batch) for packed pieces as
    small as they can be, every layer recomputed, where memory is the planner's to fill. `ran_out`: what is known of
    memory that ran out in this `case`.
    """

    name: str
    recipe: Recipe
    card: Card
    card_reason: str
    shape: ModelShape
    trainable: int
    lengths: Lengths
    updates: Updates
    engine: Choice
    precision: Choice
    fast_path: Choice
    memory: Memory
    full: Memory
    largest: int
    advice: tuple[str, ...]
    rates: Rates | None
    time: Time | None
    price: float | None
    update_range: tuple[float, float] | None = None
    budget: Budget | None = None
    sharing: Sharing = field(default_factory=Sharing)
    packed_seconds: float | None = None
    least: tuple[float, int] | None = None
    case: Case | None = None
    ran_out: Known | None = None

    @property
    def pieces(self) -> float | None:
        """Packed micro-batches of an update in the mean, on the rank that has most; None where chats are padded."""
        return self.sharing.pieces

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.card.memory

    @property
    def cost(self) -> float | None:
        """Dollars, where both the time and the price are known."""
        if self.time is None or self.price is None:
            return None
        return dollars(self.time.total, self.price * self.sharing.ranks)


def _anything(package: str) -> bool:
    """What is assumed to be installed beside a card that is not here."""
    return True


def plan_recipe(loaded: LoadedRecipe, gpu: str | None = None, price: float | None = None, gpus: int = 1) -> Plan:
    """The plan of a recipe for the card named, or for the one in this machine, or for `gpus` of them.

    Without a card here: for these cores where they can do it within a day, as `toolkit run` would, else for a T4.
    Raises an `InputError` for an unknown card or model, and for settings that the card can't run.
    """
    if price is not None and not 0 <= price < math.inf:
        raise InputError(f"--price {price:g}: wanted what an hour on a card costs in dollars, as 0.35")
    card, reason, here = _card(gpu)
    lengths = lengths_module.lengths_of(loaded.recipe)

    def planned(card: Card, reason: str, here: bool) -> Plan:
        has = is_installed if here else _anything
        return make_plan(loaded.recipe, card, lengths, price, name=loaded.name, reason=reason, has=has, gpus=gpus)

    if card is not None and card.name == "cpu" and gpus > 1:
        raise InputError(
            f"--gpus {gpus}: processes on a CPU share its cores, so there is nothing to plan; name a --gpu"
        )
    if card is None and gpus > 1:
        return planned(CARDS["t4"], "no GPU found here, so a T4 is taken; --gpu NAME chooses another", False)
    if card is not None:
        return planned(card, reason, here)
    try:
        plan = planned(_these_cores(), "no GPU found here; --gpu NAME chooses one", True)
    except EngineError:
        why = "the recipe asks for what only a GPU does"
    else:
        if plan.fits and plan.time is not None and plan.time.total <= A_DAY:
            return plan
        hours = f" in {plan.time.total / 3600:,.0f} hours" if plan.time is not None else ""
        why = f"these cores would do it{hours}" if plan.fits else "the recipe does not fit the memory that is free"
    chosen = "so a T4 is taken; --gpu NAME chooses another, --gpu cpu these cores"
    return planned(CARDS["t4"], f"no GPU found here, and {why}, {chosen}", False)


def make_plan(
    recipe: Recipe,
    card: Card,
    lengths: Lengths,
    price: float | None = None,
    *,
    name: str = "recipe",
    reason: str = "asked for",
    has: Has = _anything,
    gpus: int = 1,
) -> Plan:
    """The plan of `recipe` on `card`, or on `gpus` of it, over chats of these `lengths`; `has`: which packages there
    are."""
    check_share(recipe.chats_per_update, gpus)
    shape = load_shape(recipe.model)
    hardware = _hardware(card)
    check_hardware(recipe, hardware)
    engine = measured.fastest_engine(recipe, hardware, measured.load(), has)
    precision = choose_precision(recipe, hardware)
    setup = setup_on(recipe, shape, engine.value, precision.value, hardware.gpu, gpus)
    budget = budget_for(recipe, setup, hardware.device_memory, lengths)
    case = Case.of(recipe, setup, hardware, budget.checkpointed if budget else None)
    ran_out = known(case)
    if ran_out is not None:
        budget = ran_out.within(budget)
    chosen = setup.recomputing(budget.checkpointed if budget else None)
    shared = sharing(recipe, card, lengths, setup.trainable, budget.tokens if budget else None, gpus)
    batch = recipe.train.per_device_train_batch_size
    if budget is None:
        memory = padded_memory(setup, lengths, batch)
    else:
        memory = packed_memory(chosen, budget.tokens, lengths.trained)
    largest = largest_batch(setup, lengths, card) if budget is None else 0
    rates = rates_of(card, precision.value)
    updates, time = updates_of(recipe, lengths.chats), None
    work = _work(recipe, chosen, lengths, updates, shared)
    if rates is not None:
        time = predict(work, rates)
        if (fewer := _fewer(recipe, updates, time, work.evaluations)) is not updates:
            updates = fewer
            work = _work(recipe, chosen, lengths, updates, shared)
            time = predict(work, rates)
    rows, width = lengths.rows(batch), lengths.longest
    return Plan(
        name=name,
        recipe=recipe,
        card=card,
        card_reason=reason,
        shape=shape,
        trainable=setup.trainable,
        lengths=lengths,
        updates=updates,
        engine=engine,
        precision=precision,
        fast_path=setup.engine.fast_path(recipe, shape),
        memory=memory,
        full=full_memory(setup, rows, width, int(rows * width * lengths.trained), weights="mixed"),
        largest=largest,
        advice=() if memory.total <= card.memory else advice(recipe, setup, lengths, card),
        rates=rates,
        time=time,
        price=price,
        update_range=range_of(work, card, rates) if rates else None,
        budget=budget,
        sharing=shared,
        packed_seconds=_packed_time(recipe, card, lengths, has, gpus),
        least=_least_memory(recipe, card, lengths, has, gpus),
        case=case,
        ran_out=ran_out,
    )


def _card(gpu: str | None) -> tuple[Card | None, str, bool]:
    """The device, why it is that one, and whether it is in this machine; None where nothing was named or found."""
    if gpu is not None and gpu.lower() == "cpu":
        return _these_cores(), "--gpu cpu", True
    if gpu is not None:
        return find_card(gpu), f"--gpu {gpu}", False
    seen = seen_gpus()
    return (seen[0].card, "the GPU here", True) if seen else (None, "", False)


def _these_cores() -> Card:
    return cpu_card(usable_cores(), psutil.virtual_memory().available, cpu_name(), wide="avx512f" in cpu_flags())


def _hardware(card: Card) -> Hardware:
    gpu = None if card.name == "cpu" else Gpu(card.title, card.memory, card.capability)
    cpu_bf16 = bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    return Hardware(gpu, cpu_name(), usable_cores(), cpu_bf16, _all_memory(card))


def _all_memory(card: Card) -> int:
    """What a run's own look at the machine finds, and cuts micro-batches by: on a CPU not only what is free now."""
    if card.name != "cpu":
        return card.memory

    return max(card.memory, int(psutil.virtual_memory().total))


def _packed_time(recipe: Recipe, card: Card, lengths: Lengths, has: Has, gpus: int) -> float | None:
    """Seconds predicted for the same updates packed without padding; None where there is no such choice."""
    if recipe.train.micro_batch != "fixed" or card.name == "cpu":
        return None
    train = recipe.train.model_copy(update=PACKED)
    try:
        other = make_plan(recipe.model_copy(update={"train": train}), card, lengths, has=has, gpus=gpus)
    except EngineError:
        return None
    return other.time.total if other.time is not None and other.fits else None


def _least_memory(recipe: Recipe, card: Card, lengths: Lengths, has: Has, gpus: int) -> tuple[float, int] | None:
    """What the smallest packed pieces of an update take; None where the recipe does not leave them to the planner."""
    if recipe.train.micro_batch != "auto" or card.name == "cpu":
        return None
    tokens = -(-lengths.longest // STEP) * STEP
    train = recipe.train.model_copy(update={"micro_batch": tokens, "gradient_checkpointing": True})
    other = make_plan(recipe.model_copy(update={"train": train}), card, lengths, has=has, gpus=gpus)
    return other.memory.total, tokens


def _work(recipe: Recipe, setup: Setup, lengths: Lengths, updates: Updates, shared: Sharing) -> Work:
    train, held_out = recipe.train, lengths_module.eval_chats(recipe, lengths.chats)
    return Work(
        setup=setup,
        lengths=lengths,
        updates=updates,
        batch=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        pieces=shared.pieces,
        sharing=shared,
        evaluations=1 + math.ceil(updates.total / _every(recipe, updates)),  # one before the first update
        eval_chats=held_out,
        eval_batch=recipe.eval.per_device_eval_batch_size,
        decodings=decodings(recipe.eval, updates, _every(recipe, updates)),
        decoded=min(recipe.eval.generate, held_out),
        settings=recipe.eval,
        export=recipe.export,
    )


def _every(recipe: Recipe, updates: Updates) -> int:
    """Updates between evaluations; the last update is followed by one in any case."""
    return updates.per_epoch if recipe.eval.eval_steps == "epoch" else recipe.eval.eval_steps


def _fewer(recipe: Recipe, updates: Updates, time: Time, evaluations: int) -> Updates:
    """The updates that are predicted to fit into train.max_minutes: all of them, or fewer."""
    train = recipe.train
    if train.max_minutes is None or train.fitted_steps is not None:
        return updates
    evaluation = time.evaluation / evaluations
    left = 60 * train.max_minutes - evaluation
    if decoded := decodings(recipe.eval, updates, _every(recipe, updates)):
        one = time.decoding / decoded
        left -= 2 * one  # before training and after its last update
        evaluation += decoding_seconds(recipe, one)
    return fitted(train, updates, fitting(updates, left, time.update, evaluation, _every(recipe, updates)))
