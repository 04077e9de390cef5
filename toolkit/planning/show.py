"""A plan on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.data.held_out import divided
from toolkit.data.parts import few_held_out, many_held_out
from toolkit.engines.gated_delta import untimed
from toolkit.models.families import left_out, unknown_family
from toolkit.planning.calibration import past_error
from toolkit.planning.cards import GIB, Card
from toolkit.planning.kernel_time import Rates, Seconds
from toolkit.planning.plan import PACKED, Plan
from toolkit.planning.steps import learning_rate
from toolkit.words import counted, duration, money

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, HEIGHT = 48, 4  # of the learning-rate curve, in characters
WORTH_SAYING = 0.9  # of the time predicted for the recipe as it is
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille: the dots of the left and right column


def show(plan: Plan, console: Console) -> None:
    """Print every part of a plan, a line each, and what to change when it does not fit."""
    for label, text in _lines(plan, braille=console.encoding.startswith("utf")):
        console.print(f"{label:<12}{text}", highlight=False, markup=False, soft_wrap=True)


def _lines(plan: Plan, *, braille: bool) -> list[tuple[str, str]]:
    return [
        ("recipe", plan.name),
        ("card", f"{plan.card.title}, {plan.card.gib:.2f} GiB usable ({plan.card_reason})"),
        *([("", plan.card.note)] if plan.card.note else []),
        (
            "model",
            f"{plan.recipe.model.name}: {plan.shape.parameters:,} parameters, {plan.trainable:,} trained "
            f"({plan.trainable / plan.shape.parameters:.2%})",
        ),
        *([("", unknown)] if (unknown := unknown_family(plan.shape)) else []),
        *([("", more)] if (more := left_out(plan.recipe.model)) else []),
        ("engine", str(plan.engine)),
        *([("", plan.engine.note)] if plan.engine.note else []),
        ("fast path", str(plan.fast_path)),
        ("precision", str(plan.precision)),
        *_data(plan),
        *_packing(plan),
        *_ran_out(plan),
        *_memory(plan),
        *_time(plan),
        *_past_error(plan),
        *_curve(plan, braille),
    ]


def _data(plan: Plan) -> list[tuple[str, str]]:
    train, updates, lengths = plan.recipe.train, plan.updates, plan.lengths
    batch, steps = train.per_device_train_batch_size, train.gradient_accumulation_steps
    epochs = f"{updates.per_epoch:,} an epoch, {updates.epochs:.3g} epoch{'' if updates.epochs == 1 else 's'}"
    longest = f"longest {lengths.tokens.max():,}"
    if not lengths.measured:  # which nobody knows yet
        longest = f"none longer than train.max_length = {train.max_length:,}"
    held_out = _held_out(plan)
    return [
        (
            "chats",
            f"{lengths.chats:,} of {lengths.mean:,.0f} tokens, {longest}, {lengths.trained:.1%} trained "
            f"({lengths.origin})",
        ),
        *([("", lengths.note)] if lengths.note else []),
        *([("", held_out)] if held_out else []),
        ("updates", f"{updates.total:,} of {batch} x {steps} = {counted(batch * steps, 'chat')} ({epochs})"),
        *_sharing(plan),
    ]


def _sharing(plan: Plan) -> list[tuple[str, str]]:
    shared = plan.sharing
    if shared.ranks == 1:
        return []
    return [
        (
            "gpus",
            f"{shared.ranks} x {plan.card.title}, which share an update's chats: {shared.share:.0%} of its tokens for "
            f"the one with most (mean), {shared.summing:.3f} s an update to sum gradients (assumed)",
        )
    ]


def _held_out(plan: Plan) -> str:
    """What there is to say of how many chats are held out, too few or too many."""
    recipe, trained = plan.recipe, plan.lengths.chats
    if not divided(recipe):
        return ""  # chats of their own, as many as asked for
    wanted = recipe.eval.holdout
    held_out = round(wanted if wanted >= 1 else wanted * trained / max(1e-9, 1 - wanted))  # a share of all chats
    return few_held_out(recipe, held_out) or many_held_out(recipe, trained, held_out)


def _packing(plan: Plan) -> list[tuple[str, str]]:
    """How an update's chats are packed, in the words of the run itself."""
    budget = plan.budget
    if budget is None or plan.pieces is None:
        return []
    cut = "one micro-batch" if plan.pieces == 1 else f"{plan.pieces:.1f} micro-batches"
    each = " on each GPU" if plan.sharing.ranks > 1 else ""
    real = plan.lengths.mean * plan.lengths.in_update(plan.recipe.chats_per_update)
    return [
        ("packing", f"{budget.tokens:,} tokens a micro-batch: {budget.reason}"),
        ("", f"an update has {real:,.0f} real tokens, without padding, in {cut}{each} (means)"),
        *([("recompute", budget.checkpointing)] if budget.checkpointing else []),
    ]


def _ran_out(plan: Plan) -> list[tuple[str, str]]:
    """What earlier runs like this one have met, and that a run begins with."""
    if plan.ran_out is None:
        return []
    told, cut = plan.ran_out.told.removeprefix("ran out "), plan.ran_out.cut
    return [("ran out", f"{told}: a run begins with {cut.whole}; --forget forgets it")]


def _memory(plan: Plan) -> list[tuple[str, str]]:
    """Of each card, where there are several."""
    memory, chats = plan.memory, plan.recipe.train.per_device_train_batch_size
    cuda = plan.card.name != "cpu"
    lengths = plan.lengths
    worst = f"for {counted(lengths.rows(chats), 'row')} of {lengths.longest:,} tokens, the widest micro-batch"
    if plan.budget is not None:
        worst = f"for {plan.budget.tokens:,} packed tokens, the fullest micro-batch"
    context = {"CUDA context" if cuda else "Python and its libraries": memory.context}
    parts = [("", f"{_gib(size)}  {part}") for part, size in {**memory.parts, **context}.items()]
    verdict = "fits" if plan.fits else "does not fit"
    lines = [
        ("memory", f"{_gib(memory.total)} predicted, {verdict} in {plan.card.gib:.2f} GiB ({worst})"),
        *parts,
    ]
    if plan.least is not None and plan.least[0] < WORTH_SAYING * memory.total:
        options = f"--set train.micro_batch={plan.least[1]} --set train.gradient_checkpointing=true"
        lines.append(("", f"{_gib(plan.least[0])} predicted at the least, slower: {options}"))
    if plan.largest:
        lines.append(("", f"up to {counted(plan.largest, 'such chat')} may make a micro-batch"))
    if not plan.fits:
        told = " ".join(f"--set {setting}" for setting in plan.advice)
        lines.append(("to fit", told or "no setting makes it fit; choose a card with more memory, or a smaller model"))
    if cuda:
        told = "for all weights instead (16-bit weights and gradients, Adam in fp32, checkpointing)"
        lines.append(("full", f"{_gib(plan.full.total)} predicted {told}"))
    return lines


def _time(plan: Plan) -> list[tuple[str, str]]:
    time, rates = plan.time, plan.rates
    if time is None or rates is None or plan.update_range is None:
        return [
            ("time", f"not predicted: the speed of {plan.card.title} is not known; --gpu NAME plans for a known one")
        ]
    least, most = plan.update_range
    lines = [
        (
            "time",
            f"{duration(time.total)} predicted: {counted(plan.updates.total, 'update')} x {time.update:.2f} s"
            + (f" ({least:.2f} to {most:.2f})" if rates.memory else "")
            + (f" + {duration(time.evaluation)} of evaluation" if time.evaluation else "")
            + (f" + {duration(time.decoding)} of decoding" if time.decoding else "")
            + (f" + {duration(time.export)} of export and its check" if time.export else ""),
        ),
        *([("", more)] if (more := untimed(plan.shape)) else []),
        ("", f"an update (padding x {time.padding:.2f}): {_kinds(time.kinds, cuda=rates.memory is not None)}"),
        ("", _taken(plan.card, rates)),
    ]
    lines += _budget(plan, time.trained)
    if plan.packed_seconds is not None and plan.packed_seconds < WORTH_SAYING * time.total:
        options = " ".join(f"--set train.{key}={value}" for key, value in PACKED.items())
        pace = "the host sets the pace; " if time.host_bound else ""
        lines.append(("", f"{pace}{duration(plan.packed_seconds)} predicted without padding: {options}"))
    if plan.cost is not None and plan.price is not None:
        cards = f" and card, {plan.sharing.ranks} of them" if plan.sharing.ranks > 1 else ""
        lines.append(("cost", f"{money(plan.cost)} predicted at {money(plan.price)} an hour{cards}"))
    elif plan.card.name != "cpu":
        lines.append(("cost", "--price DOLLARS_PER_HOUR says what it costs"))
    return lines


def _budget(plan: Plan, seconds: float) -> list[tuple[str, str]]:
    """What becomes of a time budget: its updates take `seconds`, as predicted."""
    train, updates = plan.recipe.train, plan.updates
    if train.max_minutes is None:
        return []
    budget = f"train.max_minutes = {train.max_minutes:g}"
    made = "all updates" if updates.planned is None else f"{updates.total:,} of {updates.planned:,} updates"
    if train.fitted_steps is not None:
        return [("", f"{made}, as an earlier run was fitted to {budget}")]
    if seconds > 60 * train.max_minutes:
        return [("", f"{made} take longer than {budget} (predicted), and a run makes no fewer{updates.caution}")]
    return [("", f"{made} fit into {budget} (predicted); a run times its first and fits the rest{updates.caution}")]


def _kinds(kinds: Seconds, *, cuda: bool) -> str:
    """Where an update's seconds go."""
    named = {"products": kinds.products, "attention": kinds.attention}
    if not cuda:
        return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in named.items())
    named["between them"] = kinds.between
    if kinds.unpacking:
        named["NF4 to 16 bits"] = kinds.unpacking
    card = ", ".join(f"{name} {seconds:.2f}" for name, seconds in named.items())
    return f"{card} = {kinds.card:.2f} s on the card; {kinds.host:.2f} s of launching on the host, beside it"


def _taken(card: Card, rates: Rates) -> str:
    """The rates that the prediction takes, and whether they are anybody's measurement."""
    products = f"{rates.products / 1e12:,.3g} TFLOP/s in large products"
    if rates.memory is None:
        return f"taken: {products} (assumed)"
    of = f"of the data sheet's {card.half:g}" if card.half else ""
    products += f" {of} ({f'{card.sustained[0]:g} to {card.sustained[1]:g} measured' if card.sustained else 'assumed'})"
    memory = f"{rates.memory / 1e9:,.0f} GB/s of {card.bandwidth:,g} ({'measured' if card.copied else 'assumed'})"
    how = "measured" if card.sustained and card.capability >= (9, 0) else "assumed"
    return f"taken: {products}, {memory}, {rates.attention / 1e12:,.3g} TFLOP/s in attention ({how})"


def _past_error(plan: Plan) -> list[tuple[str, str]]:
    """How far off earlier plans were, where `toolkit bench` has measured this engine on this card."""
    error = past_error(plan.engine.value, plan.card.name)
    return [("past error", str(error))] if error is not None else []


def _curve(plan: Plan, braille: bool) -> list[tuple[str, str]]:
    train, updates = plan.recipe.train, plan.updates
    columns = 2 * WIDTH
    last = max(1, updates.total - 1)
    rates = [learning_rate(train, updates, round(x / (columns - 1) * last)) for x in range(columns)]
    warmup = counted(updates.warmup, "update")
    rows = plot([rate / train.learning_rate for rate in rates])
    lines = [("rate", f"{train.learning_rate:g} at most, {train.lr_scheduler_type}, warm-up over {warmup}")]
    lines += [("", row if braille else "".join("#" if ord(c) > 0x2800 else " " for c in row)) for row in rows]
    lines.append(("", f"1{updates.total:>{WIDTH - 1},}"))
    return lines


def plot(values: list[float]) -> list[str]:
    """Values from 0 to 1 as rows of braille characters, two values a character, filled from below."""
    rows = [[0x2800] * (len(values) // 2) for _ in range(HEIGHT)]
    for x, value in enumerate(values[: len(values) // 2 * 2]):
        for level in range(round(value * 4 * HEIGHT)):
            row, dot = HEIGHT - 1 - level // 4, 3 - level % 4
            rows[row][x // 2] |= _DOTS[x % 2][dot]
    return ["".join(map(chr, row)) for row in rows]


def _gib(size: float) -> str:
    return f"{size / GIB:6.2f} GiB"
