"""What the training chapter says in figures, each with a check. The order is the chapter's."""

from __future__ import annotations

from bench import derived, measured
from bench.evidence import Claim, Evidence, Finding

_BY_NAME = {claim.name: claim for claim in (*derived.CLAIMS, *measured.CLAIMS)}
CLAIMS: tuple[Claim, ...] = tuple(
    _BY_NAME[name]
    for name in (
        *("weights", "gradients", "adam", "full total", "full does not fit"),
        *("lora layer", "lora memory", "lora fits", "vocabulary", "logarithms", "tenth", "hundred times"),
        *("four at once", "accumulation", "schedule", "lengths", "checkpointing"),
        *("sample log", "sample rates", "first loss", "last loss"),
        *("updates", "update time", "hours", "cost"),
    )
)


def check_all(evidence: Evidence) -> list[tuple[Claim, Finding]]:
    return [(claim, claim.check(evidence)) for claim in CLAIMS]


def complete(findings: list[tuple[Claim, Finding]]) -> bool:
    """Whether every claim that this machine can check was checked."""
    return not any(finding.verdict == "not checked here" and finding.checkable for _, finding in findings)
