"""Chats in which a result decides, beside those that the usual mix has: over tools of the shelf and invented ones."""

from __future__ import annotations

from typing import Any

from toolkit.world import invented_chains
from toolkit.world.draft import Draft
from toolkit.world.shelf import chains

_SHELF = 0.7


def deciding(d: Draft) -> dict[str, Any]:
    """A chain whose second call hangs on what the first returned, or two calls and the question which has more."""
    return chains.deciding(d) if d.r.random() < _SHELF else invented_chains.deciding(d)


def kind_of(flags: dict[str, Any]) -> str:
    """The kind of such a chat: a question has all its calls at once."""
    return "parallel" if flags.get("chain") == "shelf asked" else "multi_step"
