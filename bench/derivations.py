"""Claims that follow, or do not, from the model's shape, the recipe's values and arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from bench.measurements import GB, Evidence, Finding, near, peak_gb, t4_update
from toolkit.planning.cards import CARDS
from toolkit.planning.cost import dollars
from toolkit.planning.steps import learning_rate, updates_of, warmup_of

ABOUT = 0.10  # a figure said with "about" may be off by this much
CHATS = 15_694
LOG_STEPS = 245
LOG_RATES = ((10, 2.0e-5), (20, 4.0e-5), (100, 1.8e-4), (245, 1.2e-5))
CLAIMED_HOURS, CLAIMED_PRICE, CLAIMED_COST = 2.0, 0.60, 1.20


def weights(evidence: Evidence) -> Finding:
    return _static(evidence, 2, 4, "trained weights")


def gradients(evidence: Evidence) -> Finding:
    return _static(evidence, 2, 4, "gradients")


def adam(evidence: Evidence) -> Finding:
    return _static(evidence, 8, 16, "optimizer states")


def _static(evidence: Evidence, each: int, claimed: float, part: str) -> Finding:
    """Bytes of all weights at `each` bytes; where the embedding is tied to the head, a file counts it twice."""
    shape = evidence.shape
    size = each * shape.parameters / GB
    twice = each * (shape.parameters + (shape.head_parameters if shape.tie_word_embeddings else 0)) / GB
    found = f"{size:.2f} GB: {shape.parameters:,} parameters x {each} bytes"
    measured = evidence.arm("full")
    if measured and measured[1].parts:
        found += f"; counted from the tensors: {measured[1].parts[part] / GB:.2f} GB"
    if near(size, claimed, ABOUT):
        return Finding("holds", found)
    if near(twice, claimed, ABOUT):
        return Finding(
            "holds if",
            found,
            f"the embedding is counted again as output head ({twice:.2f} GB), as the published checkpoint's size does; "
            "in memory the two are one tensor",
        )
    return Finding("does not hold", found)


def no_t4(evidence: Evidence) -> Finding:
    """Weights, gradients and states alone; then what was measured under a T4's cap."""
    card = CARDS["t4"]
    static = 12 * evidence.shape.parameters
    small = 6.03 * evidence.shape.parameters
    found = f"{static / GB:.1f} GB before any activation, {card.memory / GB:.1f} GB usable on a T4"
    measured = evidence.arm("full", profile="t4")
    if measured:
        found += f"; under a T4's cap: {measured[1].status}"
    eight = evidence.arm("full-adam8", profile="t4")
    conditions = ""
    if eight and eight[1].status == "measured":
        conditions = f"Adam's states are fp32: with 8-bit Adam it trained in {peak_gb(*eight):.1f} GB"
    elif small < card.memory:
        conditions = f"Adam's states are fp32: with 8-bit Adam it is {small / GB:.1f} GB before activations" + (
            f", and under the cap: {eight[1].status}" if eight else ""
        )
    fits = static <= card.memory or (measured is not None and measured[1].status == "measured")
    if fits:
        return Finding("does not hold", found)
    eight_fits = eight is None or eight[1].status == "measured"
    return Finding("holds if" if conditions and eight_fits else "holds", found, conditions)


def layer_parameters(evidence: Evidence) -> Finding:
    r = evidence.recipe.lora.r
    square = [size for size in evidence.shape.linears.values() if size == (2048, 2048)]
    count, full = r * (2048 + 2048), 2048 * 2048
    found = f"{r} x (2048 + 2048) = {count:,} of {full:,}, {count / full:.2%}"
    if count != 65_536 or round(count / full * 100, 1) != 1.6:
        return Finding("does not hold", found)
    of = f"{len(square)} of {len(evidence.shape.linears)} modules of a layer have this size"
    shape = evidence.shape
    trainable = shape.trainable_parameters(evidence.recipe.lora)
    return Finding(
        "holds", found, f"{of}; over all modules {trainable:,}, {trainable / shape.parameters:.2%} of the model"
    )


def hundred_times(evidence: Evidence) -> Finding:
    trainable = evidence.shape.trainable_parameters(evidence.recipe.lora)
    ratio = evidence.shape.parameters / trainable
    found = f"{evidence.shape.parameters:,} / {trainable:,} = {ratio:.1f} times"
    return Finding("holds" if near(ratio, 100, ABOUT) else "does not hold", found)


def vocabulary(evidence: Evidence) -> Finding:
    size = evidence.shape.vocab_size
    return Finding(
        "holds" if near(size, 100_000, ABOUT) else "does not hold", f"{size:,} rows in the model's embedding"
    )


def update_counts(evidence: Evidence) -> Finding:
    updates = updates_of(evidence.recipe, CHATS)
    found = f"{updates.per_epoch:,} an epoch, {updates.total:,} in all, over {CHATS:,} chats"
    if near(updates.per_epoch, 980, 0.01) and near(updates.total, 2940, 0.01):
        return Finding("holds", found, f"each epoch's last update has {CHATS % evidence.recipe.chats_per_update} chats")
    return Finding("does not hold", found)


def sample_log(evidence: Evidence) -> Finding:
    updates = updates_of(evidence.recipe, CHATS)
    size = evidence.recipe.chats_per_update
    found = f"{updates.total:,} updates; {LOG_STEPS} would be {LOG_STEPS * size:,} chats seen once"
    if updates.total == LOG_STEPS:
        return Finding("holds", found)
    return Finding(
        "does not hold", found, f"{LOG_STEPS} is one epoch at {math.ceil(CHATS / LOG_STEPS)} chats an update"
    )


def sample_rates(evidence: Evidence) -> Finding:
    train = evidence.recipe.train
    updates = replace(updates_of(evidence.recipe, CHATS), total=LOG_STEPS, warmup=warmup_of(train, LOG_STEPS))
    rates = [(step, learning_rate(train, updates, step - 1), claimed) for step, claimed in LOG_RATES]
    found = "; ".join(f"step {step}: {rate:.1e}, the log says {claimed:.1e}" for step, rate, claimed in rates)
    agree = all(near(rate, claimed, ABOUT) for _, rate, claimed in rates)
    return Finding(
        "holds" if agree else "does not hold", found, "" if agree else f"warm-up over {updates.warmup} updates"
    )


def schedule(evidence: Evidence) -> Finding:
    """Zero at first, straight up to the peak at the end of warm-up, then down a cosine to nothing."""
    train = evidence.recipe.train
    updates = updates_of(evidence.recipe, CHATS)
    rates = [learning_rate(train, updates, i) for i in range(updates.total)]
    up, down = rates[: updates.warmup + 1], rates[updates.warmup :]
    rises = up[0] == 0 and all(a < b for a, b in pairwise(up))
    falls = all(a > b for a, b in pairwise(down)) and down[-1] < train.learning_rate / 1000
    middle = down[len(down) // 2] / train.learning_rate
    round_ = abs(middle - 0.5) < 0.01 and down[len(down) // 4] / train.learning_rate > 0.8
    found = (
        f"0 at update 1, {max(rates):.1e} at {rates.index(max(rates)) + 1:,}, {middle:.0%} of it halfway down, "
        f"{rates[-1]:.1e} at {updates.total:,}; warm-up is {updates.warmup / updates.total:.0%}"
    )
    fits = rises and falls and round_ and near(updates.warmup / updates.total, 0.1, 0.02)
    return Finding("holds" if fits else "does not hold", found)


def logarithms(evidence: Evidence) -> Finding:
    values = -math.log(0.45), -math.log(0.99)
    found = f"-ln 0.45 = {values[0]:.4f}, -ln 0.99 = {values[1]:.4f}"
    return Finding("holds" if [round(v, 2) for v in values] == [0.80, 0.01] else "does not hold", found)


def hours(evidence: Evidence) -> Finding:
    """The chapter's own 2.5 s an update, then the update time measured or predicted for a T4."""
    total = updates_of(evidence.recipe, CHATS).total
    claimed = total * 2.5 / 3600
    found = f"{total:,} x 2.5 s = {claimed:.2f} h"
    if not near(claimed, CLAIMED_HOURS, ABOUT):
        return Finding("does not hold", found)
    known = t4_update(evidence)
    if known is None:
        return Finding("holds if", found, "an update takes 2.5 s, which is not checked here")
    real, how = total * known.seconds / 3600, known.how
    if near(real, CLAIMED_HOURS, 0.25):
        return Finding("holds", f"{found}; {how} {known.seconds:.1f} s an update: {real:.1f} h")
    return Finding(
        "does not hold", f"{how} {known.seconds:.1f} s an update: {real:.1f} h", f"the sum is right: {found}"
    )


def cost(evidence: Evidence) -> Finding:
    claimed = dollars(CLAIMED_HOURS * 3600, CLAIMED_PRICE)
    found = f"{CLAIMED_HOURS:g} h at ${CLAIMED_PRICE:.2f} = ${claimed:.2f}"
    if round(claimed, 2) != CLAIMED_COST:
        return Finding("does not hold", found)
    known = t4_update(evidence)
    if known is None:
        return Finding("holds if", found, "it takes 2 hours and an hour costs $0.60, a price that is not checked")
    real = dollars(updates_of(evidence.recipe, CHATS).total * known.seconds, CLAIMED_PRICE)
    if near(real, CLAIMED_COST, 0.25):
        return Finding("holds", f"{found}; {known.how} ${real:.2f}", "at that price, which is not checked")
    return Finding("does not hold", f"{known.how} ${real:.2f} at that price", f"the sum is right: {found}")


def tenth(evidence: Evidence) -> Finding:
    ratio = evidence.recipe.train.learning_rate / 2e-5
    return Finding(
        "not checked here",
        f"2e-5 x 10 = {evidence.recipe.train.learning_rate:g} is sound arithmetic ({ratio:.0f} times)",
        "whether it is the best rate needs both ways trained at several rates to the end",
        checkable=False,
    )
