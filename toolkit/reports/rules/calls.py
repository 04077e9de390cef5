"""Verdicts on right answers, where held-out chats were decoded in the course of training.

The held-out loss says how surprising the reference answers' words are, and a model that is trained further grows sure
of its own words. Right answers can go on rising then (docs/chapter.md), so where both are known, answers decide.
"""

from __future__ import annotations

from toolkit.reports.log import Evaluated, Facts, Log
from toolkit.reports.rules.look import Look
from toolkit.reports.statistics import fewer_p
from toolkit.reports.verdicts import Verdict

LEAST_ANSWERS = 20  # decoded, for a share of them to say anything
NO_LOWER = {"overfitting", "worse_than_base", "no_better"}  # what is said where the held-out loss does not fall
KEEP_THE_BEST = "eval.early_stopping_patience = 3, which keeps the adapter with the most right answers"


def answered(log: Log, facts: Facts) -> list[Evaluated]:
    """The evaluations whose answers decide; none where they were decoded less than twice, or too few."""
    measured = [evaluation for evaluation in log.evaluations if evaluation.calls is not None]
    enough = len(measured) > 1 and measured[-1].update > 0 and facts.decoded >= LEAST_ANSWERS
    return measured if enough else []


def weighed(by_loss: Verdict | None, log: Log, facts: Facts, look: Look) -> Verdict | None:
    """What is to be said of a run by its answers: `by_loss` is what its held-out loss says.

    Right answers that have surely become fewer stop a run, whatever the loss does. A loss that rises does not, while
    answers do not surely become fewer.
    """
    measured = answered(log, facts)
    if not measured:
        return by_loss
    best = max(measured, key=lambda evaluation: (_right(evaluation), -evaluation.update))
    last = measured[-1]
    held = "fewer_right" in look.held and _right(last) < _right(best)
    if held or _surely_fewer(best, last, facts, look.alpha / (len(measured) - 1)):
        return Verdict(
            topic="overfitting",
            code="fewer_right",
            level="stop",
            title="Right answers become fewer: stop early",
            evidence=f"{_share(best)} and {_share(last)}, of {facts.decoded} held-out chats",
            advice=KEEP_THE_BEST if not facts.patience else "",
            update=last.update,
        )
    if by_loss is None or by_loss.code not in NO_LOWER:
        return by_loss
    lowest = min(log.evaluations, key=lambda evaluation: evaluation.loss)
    then = min(measured[:-1], key=lambda evaluation: abs(evaluation.update - lowest.update))
    more = _right(last) > _right(then)
    if not more and by_loss.level != "stop":
        return by_loss
    return Verdict(
        topic="overfitting",
        code="loss_up_answers_not_down",
        level="note",
        title="Right answers rise though the held-out loss does not fall: go on"
        if more
        else "The held-out loss goes up, but right answers do not surely become fewer: go on, and watch them",
        evidence=f"held-out loss {lowest.loss:.3f} at update {lowest.update}, {log.evaluations[-1].loss:.3f} at update "
        f"{log.evaluations[-1].update}; right answers {_share(then)}, {_share(last)}, of {facts.decoded} chats",
        update=last.update,
    )


def _surely_fewer(best: Evaluated, last: Evaluated, facts: Facts, alpha: float) -> bool:
    n = facts.decoded
    return _right(last) < _right(best) and fewer_p(round(_right(last) * n), round(_right(best) * n), n) <= alpha


def _right(evaluation: Evaluated) -> float:
    return evaluation.calls or 0.0


def _share(evaluation: Evaluated) -> str:
    return f"{_right(evaluation):.0%} at update {evaluation.update}"
