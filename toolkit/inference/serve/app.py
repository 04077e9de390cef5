"""The endpoints of `toolkit serve`: OpenAI's chat completions, completions and models, and /health."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from toolkit.inference.serve.answers import ChatAnswer, Left, TextAnswer, respond
from toolkit.inference.serve.backend import Backend
from toolkit.inference.serve.bounds import OPEN, Counter, Gate, Limits, Refused, read_body
from toolkit.inference.serve.requests import read_chat, read_json, read_text
from toolkit.terminal import warn

JSON_TYPE = "application/json"
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/models", OPEN)


@dataclass(slots=True)
class State:
    """`backend` is None while the model loads. default_tools: on offer where a client sends none."""

    limits: Limits
    default_tools: Sequence[dict[str, Any]] = ()
    backend: Backend | None = None
    begun: int = field(default_factory=lambda: int(time.time()))

    def ready(self) -> Backend:
        if self.backend is None:
            raise Refused(503, "the model is loading; try again in a moment", code="loading")
        return self.backend


def make_app(state: State, lifespan: Lifespan[Any] | None = None) -> ASGIApp:
    """The endpoints behind their bounds."""

    async def health(request: Request) -> Response:
        state.ready()
        return JSONResponse({"status": "ok"})

    def known() -> dict[str, Any]:
        return {"id": state.ready().name, "object": "model", "created": state.begun, "owned_by": "toolkit"}

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [known()]})

    async def model(request: Request) -> Response:
        name, found = request.path_params["name"], known()
        if name != found["id"]:
            told = f"no model {name[:100]!r} here; there is {found['id']}"
            raise Refused(404, told, code="model_not_found", param="model")
        return JSONResponse(found)

    async def chat(request: Request) -> Response:
        backend = state.ready()
        asked = read_chat(await _json(request, state.limits), state.default_tools)
        return await respond(request, backend.name, ChatAnswer(backend, asked))

    async def complete(request: Request) -> Response:
        backend = state.ready()
        asked = read_text(await _json(request, state.limits))
        return await respond(request, backend.name, TextAnswer(backend, asked))

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name}", model, methods=["GET"]),
        Route(OPEN, health, methods=["GET"]),
    ]
    handlers: Any = {Refused: _refused, HTTPException: _no_such, Left: _left, Exception: _failed}
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    inner.router.redirect_slashes = False
    app: ASGIApp = Counter(_Guard(inner), state.limits)
    if state.limits.origins:
        app = CORSMiddleware(
            app, allow_origins=sorted(state.limits.origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return Gate(app, state.limits)


async def _json(request: Request, limits: Limits) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        raise Refused(415, f"send JSON, with the header Content-Type: {JSON_TYPE}")
    return read_json(await read_body(request.receive, limits.max_body))


async def _refused(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return refused.response


async def _no_such(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    if status == 405:
        return Refused(405, f"{request.url.path} does not take {request.method}").response
    return Refused(status, f"no such endpoint; there are {', '.join(ENDPOINTS)}").response


async def _left(request: Request, left: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(request: Request, error: Exception) -> Response:
    return Refused(500, "the server failed; its terminal says of what").response


@dataclass(frozen=True, slots=True)
class _Guard:
    """A fault of ours ends a request, not the server: one line on the terminal."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(at.filename).name}:{at.lineno}"
            warn(f"error: a request failed: {type(error).__name__}: {error} ({place})")
