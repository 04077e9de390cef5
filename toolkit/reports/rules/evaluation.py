"""Verdicts on held-out chats: overfitting, the gap to the training loss, and evaluations too noisy to tell."""

from __future__ import annotations

import bisect
import math

import numpy as np

from toolkit.data.parts import LEAST_CHATS
from toolkit.reports.log import Evaluated, Facts, Log
from toolkit.reports.rules.calls import answered, weighed
from toolkit.reports.rules.look import Look
from toolkit.reports.rules.training import RISE
from toolkit.reports.statistics import MAD_TO_SIGMA, NORMAL, median, noise, paired_p, rising_p, slope
from toolkit.reports.verdicts import Verdict
from toolkit.words import counted

NEAR, HEALTHY = 0.1, 0.3  # the chapter: evaluation within 0.1 to 0.3 of the training loss
BESIDE = 10  # training rows before an evaluation that it is compared with
LEAST_BESIDE = 3
SURE = 2.0  # standard errors
LEAST_GROUPS = 12  # of held-out chats: 12 that all rise are a chance of 1 in 4,096
UNGROUPED = 0.05  # false alarms of overfitting where the log has no groups, before the rise must also be 5%
RISEN = {"overfitting", "worse_than_base", "loss_up_answers_not_down"}  # verdicts by which the loss went up before
PATIENCE = 3  # evaluations, as eval.early_stopping_patience has it


def overfitting(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """What the held-out loss says of overfitting, and right answers where they are known (`weighed`)."""
    return weighed(_by_loss(log, facts, look), log, facts, look)


def _by_loss(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """The held-out loss went up after going down, by more than 5% and more than noise."""
    evaluations = log.evaluations
    if len(evaluations) < 3 or _few(log, facts):
        return None
    best = min(range(len(evaluations)), key=lambda i: evaluations[i].loss)
    last = evaluations[-1]
    lowest = evaluations[best]
    rise = last.loss / lowest.loss - 1 if lowest.loss > 0 else 0.0
    if rise < RISE:
        return _no_better(log, facts, look, best)
    if not look.held & RISEN and not _surely_higher(evaluations, best, look.alpha):
        return _no_better(log, facts, look, best)
    place = f"update {lowest.update}" + (f" (epoch {lowest.epoch:.2f})" if math.isfinite(lowest.epoch) else "")
    evidence = f"{lowest.loss:.3f} at {place}, {last.loss:.3f} at update {last.update}: {_higher(rise)}"
    if best == 0:
        return Verdict(
            topic="overfitting",
            code="worse_than_base",
            level="stop",
            title="The held-out loss is higher than before training",
            evidence=evidence,
            advice=f"stop; the chats that are trained on and those held out may differ, or the rate is too high: "
            f"train.learning_rate = {facts.learning_rate / 4:g}"
            if facts.learning_rate
            else "stop; a quarter of train.learning_rate, or held-out chats that are like those trained on",
            update=last.update,
        )
    return Verdict(
        topic="overfitting",
        code="overfitting",
        level="stop",
        title="The held-out loss goes up after going down: overfitting, stop early",
        evidence=evidence,
        advice=_stop_earlier(facts, lowest),
        update=last.update,
    )


def _higher(rise: float) -> str:
    return f"{rise:.0%} higher" if rise <= 1 else f"{1 + rise:.3g} times as high"


def _few(log: Log, facts: Facts) -> int:
    """How many chats were held out, where that is known and too few to say anything of others; else 0."""
    last = log.evaluations[-1]
    known = last.chats or (0 if len(last.groups) >= LEAST_CHATS else facts.held_out)
    return known if known < LEAST_CHATS else 0


def _no_better(log: Log, facts: Facts, look: Look, best: int) -> Verdict | None:
    """A fact rather than a trend: as many evaluations without a better one as early stopping waits for."""
    since = len(log.evaluations) - 1 - best
    if since < (facts.patience or PATIENCE) or look.held & {"stuck", "rate_low", "rising"}:
        return None
    lowest = log.evaluations[best]
    return Verdict(
        topic="overfitting",
        code="no_better",
        level="note",
        title="The held-out loss has not become better for a while",
        evidence=f"{since} evaluations since its best, {lowest.loss:.3f} at update {lowest.update}; whether it goes up "
        "can't be told from noise",
        update=log.evaluations[-1].update,
    )


def _stop_earlier(facts: Facts, best: Evaluated) -> str:
    parts = []
    if not facts.patience:
        parts.append("eval.early_stopping_patience = 3, which keeps the best adapter")
    if math.isfinite(best.epoch) and facts.epochs > max(1.0, 1.5 * best.epoch):
        parts.append(f"train.num_train_epochs = {max(1, math.ceil(best.epoch))}")
    if not facts.dropout:
        parts.append("lora.lora_dropout = 0.05")
    parts.append("more and more varied chats (data.sources)")
    return ", ".join(parts)


def _surely_higher(evaluations: list[Evaluated], best: int, alpha: float) -> bool:
    """Whether the last evaluation is above the best by more than noise.

    By the same groups of chats both times where the log has them, with `alpha` shared out among the evaluations that
    could have been the best. Without them, the evaluations after the best are in random order if nothing changed; so
    few can prove little, so `UNGROUPED` may be spent on them, a part at each evaluation.
    """
    first, last = evaluations[best].groups, evaluations[-1].groups
    if len(first) == len(last) >= LEAST_GROUPS:
        return paired_p(np.subtract(last, first)) <= alpha / (len(evaluations) - 1)
    after = [e.loss for e in evaluations[best + 1 :]]
    n = len(after) - 3
    return n >= 1 and rising_p(after) <= UNGROUPED / (n * (n + 1))


def gap(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """How far the held-out loss is above the training loss, less what it was at the start.

    Held-out chats may be harder than the training chats; that shows before anything was learned, and is no
    memorising. Nor can a chat be memorised that was seen once.
    """
    beside = _beside(log)
    if beside is None:
        return None
    if few := _few(log, facts):
        return _too_few(few, log, look)
    train, spread, rows = beside
    last = log.evaluations[-1]
    offset = _start_gap(log)
    found = last.loss - train
    over = found - offset
    # the level at a line's end is twice as uncertain as its mean, and a median 1.25 times
    error = math.hypot(2 * 1.2533 * spread / math.sqrt(rows), _standard_error(last.groups))
    z = NORMAL.inv_cdf(1 - look.alpha)
    evidence = f"held-out loss {last.loss:.3f}, training loss {train:.3f} beside it ({rows} rows): a gap of "
    evidence += f"{found:+.3f}"
    if 0 < offset < found:
        evidence += f", {offset:.3f} of it from the start"
    elif offset > 0:
        evidence += f"; it was {offset:.3f} at the start"
    held = bool(look.held & {"memorised", "harder"})
    # without groups, how far an evaluation is off by chance is not known: then two in a row must say so
    least = over if last.groups else over - max(0.0, last.loss - _before_last(log))
    if (over if held else least - z * error) > HEALTHY:
        if math.isfinite(last.epoch) and last.epoch <= 1:
            return Verdict(
                topic="generalisation",
                code="harder",
                level="note",
                title="The held-out loss is far above the training loss within the first epoch",
                evidence=f"{evidence}; no chat has been seen twice, so the held-out chats differ from the others",
                advice="training chats that are more like the held-out ones (data.sources)",
                update=last.update,
            )
        if answered(log, facts):
            return None  # right answers say whether it matters: `overfitting`
        return Verdict(
            topic="generalisation",
            code="memorised",
            level="warning",
            title="The held-out loss is far above the training loss: the chats were memorised",
            evidence=f"{evidence}; 0.1 to 0.3 is healthy",
            advice=_stop_earlier(facts, min(log.evaluations, key=lambda e: e.loss)),
            update=last.update,
        )
    # only what has learned something, and is not past its best, is said to be well
    fine = look.held & {"learning", "plateau"} and not look.held & (RISEN | {"fewer_right"})
    if not fine or over + z * error > HEALTHY + NEAR:
        return None
    if over - z * error > NEAR:
        return Verdict(
            topic="generalisation",
            code="healthy_gap",
            level="good",
            title="The held-out loss is a little above the training loss: healthy",
            evidence=f"{evidence}; 0.1 to 0.3 is healthy",
            update=last.update,
        )
    return Verdict(
        topic="generalisation",
        code="generalises",
        level="good",
        title="The held-out loss is near the training loss: the model generalises",
        evidence=evidence,
        update=last.update,
    )


def _too_few(few: int, log: Log, look: Look) -> Verdict | None:
    if not look.final:
        return None
    chats = f"{counted(few, 'chat')} {'was' if few == 1 else 'were'}"
    return Verdict(
        topic="generalisation",
        code="few_held_out",
        level="note",
        title="Too few held-out chats to say how the model does on others",
        evidence=f"{chats} held out; {LEAST_CHATS} are needed",
        advice="a larger eval.holdout, or chats of their own in eval.sources",
        update=log.last_update,
    )


def _before_last(log: Log) -> float:
    """The held-out loss one evaluation earlier; minus infinity where that was before training, or there is none."""
    before = log.evaluations[-2] if len(log.evaluations) > 1 else None
    return before.loss if before is not None and before.update else -math.inf


def _beside(log: Log) -> tuple[float, float, int] | None:
    """(level, noise, rows) of the training loss just before the last evaluation; None with too few rows.

    The level is where the rows' slope leads to at the evaluation, but never beyond what one of them was: a line drawn
    on from a steep fall soon is below 0.
    """
    if not log.evaluations or log.evaluations[-1].update == 0:
        return None
    update = log.evaluations[-1].update
    all_updates, all_losses = log.finite_losses()
    until = bisect.bisect_right(all_updates, update)  # rows are in order, and many
    near = slice(max(0, until - BESIDE), until)
    if until < LEAST_BESIDE:
        return None
    updates, losses = np.array(all_updates[near], dtype=float), np.array(all_losses[near], dtype=float)
    # the loss falls while it is measured: along its slope to the evaluation's update
    levels = losses + slope(updates, losses) * (update - updates)
    return float(np.clip(median(levels), losses.min(), losses.max())), noise(losses), len(losses)


def _start_gap(log: Log) -> float:
    """The gap before training that is surely there; 0 where none is, or it is not known."""
    first = log.evaluations[0]
    _, losses = log.finite_losses()
    if first.update != 0 or not losses:
        return 0.0
    return max(0.0, first.loss - losses[0] - SURE * noise(losses[:BESIDE]))


def _standard_error(groups: tuple[float, ...]) -> float:
    return float(np.std(groups, ddof=1) / math.sqrt(len(groups))) if len(groups) >= 4 else 0.0


def too_noisy(log: Log, facts: Facts, look: Look) -> Verdict | None:
    """The held-out loss changed by less than evaluations differ by chance."""
    evaluations = log.evaluations
    if len(evaluations) < (2 if look.final else 5):
        return None
    first, last = evaluations[0], evaluations[-1]
    change = last.loss - first.loss
    if len(first.groups) == len(last.groups) >= LEAST_GROUPS:
        error = float(np.std(np.subtract(last.groups, first.groups), ddof=1) / math.sqrt(len(first.groups)))
        how = f"over {len(first.groups)} groups of held-out chats"
    elif len(evaluations) >= 5:
        losses = [e.loss for e in evaluations]
        # second differences know nothing of a steady trend
        error = float(MAD_TO_SIGMA * np.median(np.abs(np.diff(losses, 2))) / math.sqrt(6)) * math.sqrt(2)
        how = f"by the jumps between {len(evaluations)} evaluations"
    else:
        return None
    if error == 0 or abs(change) >= SURE * error:
        return None
    return Verdict(
        topic="evaluation",
        code="too_noisy",
        level="note",
        title="The evaluation is noisier than the change it shows",
        evidence=f"{first.loss:.3f} at update {first.update}, {last.loss:.3f} at update {last.update}: a change of "
        f"{change:+.3f} with a standard error of {error:.3f} {how}",
        advice="more held-out chats (eval.holdout or eval.sources) before anything is concluded from it",
        update=last.update,
    )
