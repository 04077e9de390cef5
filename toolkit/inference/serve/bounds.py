"""Who may ask, and how much: Host, Origin, key, size and number of requests, as ASGI layers around the endpoints.

A page in a browser can send requests to loopback, and by a name that it makes resolve there it can read the answers:
so only names of loopback are answered, and no page of another origin unless it was named at the start.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = 1 << 20  # bytes
BODY_SECONDS = 30.0  # for a body to arrive
WAITING = 16  # requests beyond those that are answered at once
OPEN = "/health"  # needs no key


class Refused(Exception):
    """A request that gets an error in OpenAI's shape instead of an answer."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
        return JSONResponse(self.body, self.status, headers.get(self.status))


@dataclass(frozen=True, slots=True)
class Limits:
    """hosts: values of the header Host that are answered, None for all. origins: pages that may ask ("*": all).
    key: what clients must send, None for nothing. running: requests that are answered at the same time."""

    hosts: frozenset[str] | None
    origins: frozenset[str] = frozenset()
    key: str | None = None
    max_body: int = MAX_BODY
    running: int = 1


def hosts_of(port: int) -> frozenset[str]:
    """The values of Host that mean this machine's loopback at a port."""
    named = {f"{name}:{port}" for name in LOOPBACK_NAMES}
    return frozenset(named | set(LOOPBACK_NAMES) if port == 80 else named)


@dataclass(slots=True)
class Gate:
    """The outer layer: by which name the server was asked, and from which page."""

    app: ASGIApp
    limits: Limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            self._check(scope["headers"])
        except Refused as refused:
            await refused.response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        hosts = self.limits.hosts
        named = [host.lower() for host in values(headers, b"host")]
        if hosts is not None and (len(named) != 1 or named[0] not in hosts):
            wanted = ", ".join(sorted(hosts))
            raise Refused(421, f"this server answers to its own names only ({wanted})", code="wrong_host")
        origins = values(headers, b"origin")
        own = {f"http://{host}" for host in hosts or ()}
        if "*" not in self.limits.origins and any(origin not in own | self.limits.origins for origin in origins):
            raise Refused(
                403, "pages of other origins are not answered; --cors ORIGIN at the start allows one", code="origin"
            )
        crossed = any(value in ("cross-site", "same-site") for value in values(headers, b"sec-fetch-site"))
        if crossed and not origins:
            raise Refused(403, "requests of web pages are not answered without their origin", code="origin")


@dataclass(slots=True)
class Counter:
    """The inner layer: key, size of the body, number of requests at a time."""

    app: ASGIApp
    limits: Limits
    running: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == OPEN:
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope["headers"])
            if self.running >= self.limits.running + WAITING:
                raise Refused(429, f"{self.running} requests are waiting already; try again later", code="busy")
        except Refused as refused:
            await refused.response(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1

    def _check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if self.limits.key is not None:
            wanted = f"Bearer {self.limits.key}".encode()
            sent = [value.encode("latin-1") for value in values(headers, b"authorization")]
            if len(sent) != 1 or not hmac.compare_digest(sent[0], wanted):
                told = "wrong or missing key; send it as: Authorization: Bearer KEY"
                raise Refused(401, told, code="invalid_api_key")
        for length in values(headers, b"content-length"):
            if len(length) > 15 or not length.isdecimal() or int(length) > self.limits.max_body:
                raise self.too_large(self.limits.max_body)

    @staticmethod
    def too_large(most: int) -> Refused:
        return Refused(413, f"the body is larger than {most} bytes (--max-body)", code="body_too_large")


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body. Raises `Refused` when it is larger than `most` bytes, comes too slowly or breaks off."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the body broke off")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise Counter.too_large(most)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} seconds") from None


def values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """All values of a header, whose names ASGI gives in lower case."""
    return [value.decode("latin-1") for key, value in headers if key == name]
