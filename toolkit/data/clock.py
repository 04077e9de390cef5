"""The date that some chat templates write (Llama 3.2, SmolLM3, Mistral Small 3, LFM2.5): a run keeps its first day's.

With that of each day its tokens would be others the next morning, and it could be neither resumed nor verified where
its token table is gone, as in a notebook's next session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

CLOCK = "strftime_now"
"""What a template calls, as transformers names it."""


def today() -> str:
    """As 2026-11-30, by the machine's clock and zone, as transformers takes it."""
    return datetime.now().date().isoformat()


def clock_of(day: str) -> Callable[[str], str]:
    """`strftime_now` at the first second of a day."""
    moment = datetime.combine(date.fromisoformat(day), time.min)
    return moment.strftime


def day_of(environment: Mapping[str, Any] | None) -> str:
    """The date that a run's chats were written with, out of its environment.json, where its template asks for one; else
    empty."""
    return str((environment or {}).get("data", {}).get("day", ""))


def asks_for_a_day(folder: Path) -> bool:
    """Whether a chat template in a tokenizer's folder writes a date. Nothing heavy is imported to tell."""
    files = [folder / "tokenizer_config.json", *folder.glob("chat_template.*")]
    files += (folder / "additional_chat_templates").glob("*.jinja")
    return any(CLOCK.encode() in file.read_bytes() for file in files if file.is_file())
