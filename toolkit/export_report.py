"""What a verification found: one check a line, with its numbers, and what to do where it failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit import jsons
from toolkit.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console

Outcome = Literal["pass", "warn", "fail", "skip"]
CheckName = Literal["structure", "weights", "tokenizer", "template", "agreement", "runtime", "calls", "control"]

QUESTIONS: dict[CheckName, str] = {
    "structure": "Is every tensor there, finite, of the right shape and type, and the file the one that was written?",
    "weights": "Does the official dequantiser give back the merged weights?",
    "tokenizer": "Does llama.cpp cut text into the tokens that training saw?",
    "template": "Does llama.cpp's template engine write the prompt that training saw?",
    "agreement": "Do the file's weights predict what the trained model predicts, token by token?",
    "runtime": "Does llama.cpp, running the file, predict what the trained model predicts?",
    "calls": "Does llama.cpp, running the file, make the tool calls that the trained model makes?",
    "control": "Would these checks have seen it if the fine-tune were missing?",
}


@dataclass(slots=True)
class Step:
    """One step: what was done, to which file (None: to all), how long it took, and how much of how much was done."""

    name: str
    file: str | None
    seconds: float
    done: int = 0
    of: int = 0


@dataclass(slots=True)
class Check:
    """One question about one file (None: about all), its answer in a line, and the numbers behind it.

    "warn" is a pass that a user should know of. `advice` says what to do, on a failed check or a warning only.
    `details` are lines for who looks closer; `notes` say what the runtime does to any such file, which is no fault of
    this one but worth knowing.
    """

    name: CheckName
    file: str | None
    outcome: Outcome
    summary: str
    numbers: dict[str, Any] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    advice: str = ""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{self.name}: {place}{self.summary}{f'. {self.advice}' if self.advice else ''}"


@dataclass(slots=True)
class VerifyReport:
    """A verification. `how` says what was measured with what: chats, tokens, precision, runtime, threads; `steps`
    where its `seconds` went."""

    name: str
    created: str
    files: list[dict[str, Any]]
    how: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0
    steps: list[Step] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "fail"]

    @property
    def warned(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "warn"]

    @property
    def skipped(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "skip"]

    @property
    def lines(self) -> list[str]:
        """One line a failed check, with its numbers and what to do; empty when all is well."""
        return [str(check) for check in self.failures]

    @property
    def verdict(self) -> str:
        if self.failures:
            return f"failed: {len(self.failures)} of {len(self.checks)} checks"
        warned = f", {len(self.warned)} of them with a warning" if self.warned else ""
        left_out = f", {len(self.skipped)} could not be made" if self.skipped else ""
        return f"passed: {len(self.checks) - len(self.skipped)} checks{warned}{left_out}"

    @property
    def times(self) -> str:
        """Where the time went, as `weights 3 s, trained model 12 s (24 of 24), ...`."""
        told = []
        for step in self.steps:
            place = f"{step.file}: " if step.file else ""
            told.append(
                f"{place}{step.name} {step.seconds:g} s" + (f" ({step.done:,} of {step.of:,})" if step.of else "")
            )
        return ", ".join(told)

    def of(self, name: CheckName, file: str | None = None) -> Check | None:
        """The check of a name about a file, if it was made."""
        return next((check for check in self.checks if check.name == name and check.file == file), None)

    @classmethod
    def load(cls, folder: Path) -> VerifyReport:
        """The report in an export folder. Raises `RunError` where there is none that can be read."""
        path = folder / "export_report.json"
        try:
            values = jsons.loads(path.read_text(encoding="utf-8"))
            checks = [Check(**check) for check in values.pop("checks")]
            steps = [Step(**step) for step in values.pop("steps", [])]
            del values["passed"], values["verdict"]
            return cls(checks=checks, steps=steps, **values)
        except FileNotFoundError:
            raise RunError(f"{folder}: no export_report.json; verify the export first") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: not a report of this toolkit ({error})") from None

    def render(self, console: Console) -> None:
        """A line a check, then where the time went and the verdict."""
        for check in self.checks:
            show(console, check)
        if self.steps:
            console.print(f"time       {self.seconds:g} s: {self.times}", markup=False)
        console.print(f"verified   {self.verdict}", markup=False)


def show(console: Console, check: Check) -> None:
    """One check on a terminal."""
    mark = {"pass": "ok", "warn": "WARNING", "fail": "FAILED", "skip": "not made"}[check.outcome]
    style = {"fail": "bold red", "warn": "yellow"}.get(check.outcome)
    console.print(f"{mark:9}  {check}", markup=False, style=style)
    for note in check.notes:
        console.print(f"note       {note}", markup=False)
