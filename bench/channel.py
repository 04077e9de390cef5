"""How a worker hears from its parent; bench.worker says which messages there are."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any


class Finished(Exception):
    """The parent has sent quit."""


class Channel:
    """The worker's end of the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, event: str, **values: Any) -> None:
        self._connection.send({"event": event, **values})

    def receive(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = self._connection.recv()
        except EOFError:
            raise Finished from None
        return message
