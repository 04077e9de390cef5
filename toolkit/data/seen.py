"""The tools that a run's chats had on offer, so that the trained model can be offered them again.

    tools.json
      distinct   how many there are, by name and schema; at least so many where `cut` is true
      cut        whether there were more than were counted
      tools      the most frequent, as function schemas in OpenAI's shape; `chats` says how many had it

The file can be edited and given to --tools.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import jsons
from toolkit.chats import Chat
from toolkit.data.notes import Remarks, RowError
from toolkit.data.schemas import read_tools

FILE = "tools.json"
KEPT = 200
COUNTED = 5000  # tools beyond these are not looked at any more
LONGEST = 20_000  # characters of a tool that is kept


@dataclass(slots=True)
class ToolTally:
    """Counts tools by their JSON text. Adds up over chunks."""

    counts: Counter[str] = field(default_factory=Counter)
    cut: bool = False

    def add_chats(self, chats: Iterable[Chat]) -> None:
        for chat in chats:
            self._count({json.dumps(tool["function"], ensure_ascii=False): 1 for tool in chat.tools})

    def add(self, other: ToolTally) -> None:
        self._count(other.counts)
        self.cut = self.cut or other.cut

    def _count(self, found: dict[str, int]) -> None:
        for text, count in found.items():
            if text in self.counts or len(self.counts) < COUNTED:
                self.counts[text] += count
            else:
                self.cut = True

    def as_dict(self) -> dict[str, Any]:
        """What tools.json says; tools with the same count in the order in which they came."""
        kept = [(text, count) for text, count in self.counts.most_common() if len(text) <= LONGEST][:KEPT]
        tools = [{"type": "function", "function": jsons.loads(text), "chats": count} for text, count in kept]
        return {"distinct": len(self.counts), "cut": self.cut, "tools": tools}


@dataclass(frozen=True, slots=True)
class SeenTools:
    """Tools that a model was trained with, the most frequent first; `distinct` of them were there in all."""

    path: Path
    schemas: tuple[dict[str, Any], ...]
    distinct: int

    @property
    def whole(self) -> bool:
        """Whether no other tool was there."""
        return len(self.schemas) == self.distinct


def read_seen(folder: Path) -> SeenTools | None:
    """What `folder` says of the tools seen in training; None where it says nothing that can be read."""
    path = folder / FILE
    try:
        value = jsons.loads(path.read_text(encoding="utf-8"))
        schemas = read_tools(value["tools"], Remarks()).schemas
        return SeenTools(path, schemas, max(len(schemas), int(value.get("distinct", 0))))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, RowError):
        return None
