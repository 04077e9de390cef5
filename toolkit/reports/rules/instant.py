"""Verdicts that need no statistics, or only those of the rows just before: looked for at every row."""

from __future__ import annotations

import math

from toolkit.reports.log import Facts, Log
from toolkit.reports.verdicts import Verdict

LOW_START = 0.1  # nats a token: a geometric mean of 90% for every right token, before anything was learned
OFTEN = 0.01  # share of rows that spike
SCALER_SETTLES = 20  # updates in which a loss scaler that starts at 2^16 finds its scale by skipping
SKIPPED_SHARE = 0.01  # a settled scaler tries a larger scale, and skips, once in 2,000 updates


def broken(log: Log, facts: Facts) -> Verdict | None:
    """NaN, infinity or below 0. An infinite gradient norm is how fp16 loss scaling finds its scale, and no fault."""
    found = [(u, name, value) for u, name, value in log.broken if not (facts.fp16 and name == "grad_norm")]
    if not found:
        return None
    update, name, value = found[0]
    if all(math.isfinite(value) for _, _, value in found):
        return Verdict(
            topic="numbers",
            code="impossible",
            level="stop",
            title="The log has a number that can't be",
            evidence=f"{name} is {value:.4g} at update {update}, below 0"
            + (f", and {len(found) - 1} more" if len(found) > 1 else ""),
            advice="another look at what wrote metrics.jsonl; such rows are left out of all other verdicts",
            update=update,
        )
    update, name, value = next(one for one in found if not math.isfinite(one[2]))
    return Verdict(
        topic="numbers",
        code="not_finite",
        level="stop",
        title="A number is no longer finite: training broke",
        evidence=f"{name} is {value} at update {update}" + (f", and {len(found) - 1} more" if len(found) > 1 else ""),
        advice=f"{lower_rate(facts)}, a longer train.warmup_ratio, or `toolkit data check` for broken rows",
        update=update,
    )


def masked(log: Log, facts: Facts) -> Verdict | None:
    """A loss of exactly 0 means that no token was trained on."""
    zeros = log.zeros
    if not zeros:
        return None
    return Verdict(
        topic="mask",
        code="all_masked",
        level="stop",
        title="The loss is exactly 0: no token is trained on",
        evidence=f"{len(zeros)} of {len(log.losses)} rows, the first at update {zeros[0]}",
        advice="`toolkit data preview` to see which tokens are trained, a larger train.max_length where answers are "
        "cut off, or another data.call_format",
        update=zeros[0],
    )


def low_start(log: Log, facts: Facts) -> Verdict | None:
    """The loss before anything was learned: of the evaluation at update 0, else of the first row."""
    start = next((e for e in log.evaluations if e.update == 0), None)
    if start is not None:
        value, where = start.loss, "held-out loss before the first update"
    elif log.losses:
        value, where = log.losses[0], f"training loss at update {log.updates[0]}"
    else:
        return None
    if not 0 < value < LOW_START:
        return None
    return Verdict(
        topic="start",
        code="low_start",
        level="warning",
        title="The loss is suspiciously low at the start",
        evidence=f"{where} is {value:.3f}, so in the mean the model gives {math.exp(-value):.1%} to each right token "
        "already",
        advice="`toolkit data preview`: a leak (the answer stands in the prompt), or a wrong mask or template, looks "
        "like this; a model that was trained on these chats before does too",
    )


def skipped(log: Log, facts: Facts) -> Verdict | None:
    """fp16 updates skipped because gradients overflowed, beyond those in which the loss scaler settles."""
    if not log.skipped:
        return None
    early = max((count for update, count in log.skipped if update <= SCALER_SETTLES), default=0)
    update, count = log.skipped[-1]
    since = update - SCALER_SETTLES
    late = min(count - early, since)
    if late < 3 or late <= SKIPPED_SHARE * since:
        return None
    return Verdict(
        topic="precision",
        code="fp16_skipped",
        level="warning",
        title="fp16 updates are skipped because gradients overflow",
        evidence=f"{late} of the {since} updates after update {SCALER_SETTLES}; a settled loss scaler skips 1 in 2,000",
        advice=f"train.bf16 = true and train.fp16 = false where the GPU has bfloat16, or {lower_rate(facts)}",
        update=update,
    )


def cuts(log: Log, facts: Facts) -> Verdict | None:
    """Memory ran out, and the run went on in smaller pieces."""
    if not log.cuts:
        return None
    update, cut = log.cuts[-1]
    setting = f"train.micro_batch = {cut.tokens}" if cut.tokens else ""
    if cut.rows:
        setting = f"train.per_device_train_batch_size = {cut.rows}, with more train.gradient_accumulation_steps"
    setting += (" and " if setting else "") + "train.gradient_checkpointing = true" if cut.recompute else ""
    return Verdict(
        topic="cut",
        code="memory_cut",
        level="note",
        title="Memory ran out, and the run went on in smaller pieces, its chats and loss the same",
        evidence=f"at update {update}, {cut.whole}",
        advice=f"{setting} from the start, which spares making updates again" if setting else "",
        update=update,
    )


def spikes(log: Log, facts: Facts) -> Verdict | None:
    """Gradient norms far above those of the rows before them."""
    if not log.spikes:
        return None
    often = len(log.spikes) >= 3 and len(log.spikes) > OFTEN * len(log.grad_norms)
    clipped = facts.max_grad_norm > 0
    most = max(factor for _, factor in log.spikes)
    where = ", ".join(str(update) for update, _ in log.spikes[:5]) + (", ..." if len(log.spikes) > 5 else "")
    if often:
        title = "The gradient norm spikes again and again"
        advice = f"{lower_rate(facts)}, a longer train.warmup_ratio, or a look at those rows' chats"
    else:
        title = "The gradient norm spiked" + (", and was clipped" if clipped else "")
        advice = "" if clipped else "train.max_grad_norm = 1.0"
    return Verdict(
        topic="gradient",
        code="gradient_spikes",
        level="warning" if often or not clipped else "note",
        title=title,
        evidence=f"{len(log.spikes)} of {len(log.grad_norms)} rows, up to {most:.0f} times the median of the rows "
        f"before; at update {where}",
        advice=advice,
        update=log.spikes[-1][0],
    )


def lower_rate(facts: Facts) -> str:
    """The advice to halve the rate, with the value where it is known."""
    if facts.learning_rate:
        return f"train.learning_rate = {facts.learning_rate / 2:g} (half of it)"
    return "half of train.learning_rate"
