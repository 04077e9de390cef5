"""One exception tree. Every message says what was found, what was wanted and what to do next.

`InputError` and its children mean that the user's input is wrong (exit code 2); every other `ToolkitError` means that
the work failed (exit code 1). `toolkit.commands.main.main` prints them without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

_LONGEST_WORD = 100  # characters that a near name is looked for


def first_line(error: BaseException) -> str:
    """What an error of another library says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unbroken(text: str) -> str:
    """`text` with its line breaks written `\\n` and `\\r`: names and values out of data could else pass for lines of
    ours."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where: `where` is `file:line`, `file:line: key`, `--set KEY=VALUE` or empty.

    The message is one line, whatever is quoted in it.
    """

    where: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", unbroken(self.message))

    def __str__(self) -> str:
        return f"{unbroken(self.where)}: {self.message}" if self.where else self.message


class ToolkitError(Exception):
    """Base of all errors that the toolkit raises on purpose."""

    exit_code = 1


class InputError(ToolkitError, ValueError):
    """The user's input is wrong. Holds every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = [Problem("", problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[Any, ...]:
        """As another process gets it: with the same words, by which ranks know what is told already."""
        return type(self), (self.problems,)


class RecipeError(InputError):
    """A recipe or a --set value is wrong."""


class DataError(InputError):
    """Rows, chats or token tables are wrong."""


class ModelError(InputError):
    """A model can't be found, read or used as the recipe asks."""


class EngineError(InputError):
    """The engine asked for can't run here, or not with these settings."""


class RunError(InputError):
    """A run folder or checkpoint is not what the command needs."""


class TrainingError(ToolkitError, RuntimeError):
    """Training could not go on: NaN, skipped steps, out of memory."""


class RankLost(TrainingError):
    """Another of the processes that train together has ended."""


class InterruptedRun(ToolkitError):
    """The user stopped the run; a checkpoint was kept."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str], *, alike: float | None = None) -> str:
    """`", did you mean lora_dropout?"` for the `nearest` of `known`, or an empty string where none is near."""
    return meant(nearest(word, known, alike=alike))


def meant(near: str) -> str:
    """`did_you_mean` where the nearest name was found another way; `near` may be empty."""
    return f", did you mean {near}?" if near else ""


def nearest(word: str, known: Iterable[str], *, alike: float | None = None) -> str:
    """The one of `known` that is most like `word`, or an empty string.

    Of words of up to 3 letters, as `t4`, half may differ; of others two fifths, or what `alike` leaves of 1.

    Comparing takes a time that grows with the square of the lengths, so long words and the 1,001st of `known` are left.
    """
    if len(word) > _LONGEST_WORD:
        return ""
    short = [other for other in islice(known, 1000) if isinstance(other, str) and len(other) <= _LONGEST_WORD]
    cutoff = alike or (0.5 if len(word) <= 3 else 0.6)
    return next(iter(difflib.get_close_matches(word, short, n=1, cutoff=cutoff)), "")
