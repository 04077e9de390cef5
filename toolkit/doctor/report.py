"""What `toolkit doctor` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.words import typed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was checked. `ok` is None where nothing depends on it."""

    name: str
    found: str
    ok: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Lines by heading, and what is wrong with the command that mends it (empty where no command can)."""

    sections: Mapping[str, Sequence[Line]]
    problems: Sequence[tuple[str, str]]
    hints: Sequence[tuple[str, str]]

    @property
    def ok(self) -> bool:
        """Whether `toolkit run` can work here, with some engine."""
        return not self.problems

    def render(self, console: Console) -> None:
        signs = {True: ("ok ", "green"), False: ("no ", "red"), None: ("   ", None)}
        for title, lines in self.sections.items():
            console.print(title, style="bold")
            for line in lines:
                sign, style = signs[line.ok]
                console.print(f"  {sign}", style=style, end="")
                text = f"{line.name:<18} {line.found}" + (f"  ({line.note})" if line.note else "")
                console.print(text, soft_wrap=True)
        for title, items in (("missing", self.problems), ("would help", self.hints)):
            if items:
                console.print(title, style="bold")
            for what, command in items:
                console.print(f"  {what}", soft_wrap=True)
                if command:
                    console.print(f"    {command}", soft_wrap=True)
        console.print(f"{typed('run')} {'works here' if self.ok else 'does not work here yet'}")
