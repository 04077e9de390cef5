"""Chats in which a result decides, or is put together with what was said, beside those that the usual mix has."""

from __future__ import annotations

from typing import Any

from toolkit.world import invented_decisions
from toolkit.world.draft import Draft
from toolkit.world.finding import found_or_not
from toolkit.world.former import former
from toolkit.world.joining import joined
from toolkit.world.shelf import chains

_WAYS = (chains.deciding, invented_decisions.deciding, joined, found_or_not, former)
# by the wrong chains with unseen tools, of which the last 48 have: 9 no name behind a folder, 9 the new value for what
# was before or that for another call, 8 the other of two, 6 another number of the result, 3 not what came closest
_SHARES = (0.36, 0.28, 0.2, 0.08, 0.08)


def deciding(d: Draft) -> dict[str, Any]:
    """A chain whose second call hangs on what the first returned, or two calls and the question which has more."""
    return d.r.choices(_WAYS, _SHARES)[0](d)


def kind_of(flags: dict[str, Any]) -> str:
    """The kind of such a chat: a question has all its calls at once."""
    return "parallel" if flags.get("chain") == "shelf asked" else "multi_step"
