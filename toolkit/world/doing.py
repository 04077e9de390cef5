"""What a chain makes its calls with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.world.draft import Draft
from toolkit.world.spec import Chain


class Do:
    """A chain's calls, and what decides between them."""

    def __init__(self, draft: Draft, chain: Chain) -> None:
        self._draft = draft
        self._chain = chain

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        return self.all((name, arguments))[0]

    def attempt(self, name: str, /, **arguments: Any) -> Any:
        """A call that may, or must, come back with an error."""
        return self._draft.call((name, arguments), may_fail=True)[0]

    def because(self, way: str, *, holds: bool = True, **fields: Any) -> None:
        """What decides the next call (`Draft.because`)."""
        self._draft.because(way, holds=holds, **fields)

    def all(self, *calls: tuple[str, Mapping[str, Any]]) -> list[Any]:
        """Several calls in one assistant turn."""
        for name, _ in calls:
            if name not in self._chain.tools:
                raise ValueError(f"chain {self._chain.name} calls {name}, which it does not name")
        return self._draft.call(*calls)
