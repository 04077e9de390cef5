"""Ports of this machine for servers in processes of their own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A free port that a server may be told to listen at. Within the block the system gives it to nobody who asks for
    any port, as other tests do at the same time."""
    with socket.socket() as keeps:
        keeps.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers set it, or they would find it taken
        keeps.bind(("127.0.0.1", 0))
        yield int(keeps.getsockname()[1])
