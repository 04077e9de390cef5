"""Greedy tool calls of the trained model and of a file, chat by chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.data.call_parsing import Parsed, parse
from toolkit.evaluation.statistics import Rate
from toolkit.evaluation.wanted import same_calls
from toolkit.words import short


@dataclass(frozen=True, slots=True)
class CallAgreement:
    """Of all chats: `same` decision (the same calls, or none from both). Of those in which either calls: the tools'
    `names` and, of chats with the same names, the `arguments`. Of the file's calls: `valid_json`. `called`: chats in
    which the trained model calls. `text`: written word for word the same."""

    same: Rate
    names: Rate
    arguments: Rate
    valid_json: Rate
    text: Rate
    called: int

    def numbers(self) -> dict[str, Any]:
        rates = {name: getattr(self, name).as_dict() for name in ("same", "names", "arguments", "valid_json", "text")}
        return {**rates, "called": self.called}


def compare_calls(trained: Sequence[str], other: Sequence[str], call_format: str) -> tuple[CallAgreement, list[str]]:
    """Agreement over the texts of the same chats, and a line for each chat that differs."""
    pairs = [(parse(a, call_format), parse(b, call_format)) for a, b in zip(trained, other, strict=True)]
    calling = [(a, b) for a, b in pairs if a.calls or b.calls]
    named = [_names(a) == _names(b) for a, b in calling]
    agreement = CallAgreement(
        same=Rate.of(_same(a, b) for a, b in pairs),
        names=Rate.of(named),
        arguments=Rate.of(_same(a, b) for (a, b), equal in zip(calling, named, strict=True) if equal),
        valid_json=Rate.of(b.valid_json for _, b in pairs if b.has_call),
        text=Rate.of(a == b for a, b in zip(trained, other, strict=True)),
        called=sum(bool(a.calls) for a, _ in pairs),
    )
    flips = [
        f"trained: {short(before)} | file: {short(after)}"
        for (a, b), before, after in zip(pairs, trained, other, strict=True)
        if not _same(a, b)
    ]
    return agreement, flips


def _same(a: Parsed, b: Parsed) -> bool:
    return a.has_call == b.has_call and same_calls(a.calls, b.calls)


def _names(parsed: Parsed) -> list[str]:
    return sorted(call.name for call in parsed.calls)
