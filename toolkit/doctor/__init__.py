"""`toolkit doctor`: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

from toolkit.doctor.facts import look
from toolkit.doctor.judge import judge
from toolkit.doctor.report import Report


def examine() -> Report:
    """Look at this machine. Imports torch if it is there, to ask what GPUs it can use."""
    return judge(look())
