"""Chats in which a result decides, or is put together with what was said, beside those that the usual mix has."""

from __future__ import annotations

from typing import Any

from toolkit.world import invented_decisions
from toolkit.world.draft import Draft
from toolkit.world.finding import found_or_not
from toolkit.world.joining import joined
from toolkit.world.shelf import chains

_WAYS = (chains.deciding, invented_decisions.deciding, joined, found_or_not)
# by the wrong chains with unseen tools: 18 act on the other of two, 15 give on what is new for what was before, 12 do
# not put a name behind a folder, 9 lose what came closest, 6 take a list for empty or its ids for others
_SHARES = (0.38, 0.32, 0.2, 0.1)


def deciding(d: Draft) -> dict[str, Any]:
    """A chain whose second call hangs on what the first returned, or two calls and the question which has more."""
    return d.r.choices(_WAYS, _SHARES)[0](d)


def kind_of(flags: dict[str, Any]) -> str:
    """The kind of such a chat: a question has all its calls at once."""
    return "parallel" if flags.get("chain") == "shelf asked" else "multi_step"
