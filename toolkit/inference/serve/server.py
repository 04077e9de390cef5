"""The server's life: it listens at once, loads the model beside, and ends when it is told to or when llama.cpp does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from toolkit.errors import ToolkitError
from toolkit.inference.process import LlamaProcess
from toolkit.inference.prompting import Prompting
from toolkit.inference.serve.app import State, make_app
from toolkit.inference.serve.backend import Backend
from toolkit.inference.serve.bounds import Limits

ENDING_SECONDS = 2  # for answers that are being written when the server is told to stop
CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class Loading:
    """A model that is to be served. n_ctx: tokens of one chat, for each of `parallel` chats."""

    path: Path
    prompting: Prompting
    n_ctx: int
    parallel: int
    threads: int


def run(
    loading: Loading,
    limits: Limits,
    tools: Sequence[dict[str, Any]],
    opened: socket.socket,
    stop: threading.Event,
    serving: Callable[[int], None],
) -> None:
    """Serve on a listening socket until SIGINT, SIGTERM or `stop`; `serving` is called with the tokens that a chat
    may have, once the model is there.

    Raises `ModelError` when the model can't be loaded and `ToolkitError` when llama.cpp ends.
    """
    state = State(limits, tools)
    failed: list[ToolkitError] = []

    async def load_and_watch(process: LlamaProcess) -> None:
        try:
            await asyncio.to_thread(process.ready)
            transport = httpx.AsyncHTTPTransport(uds=str(process.socket))
            backend = Backend(transport, loading.path.stem, loading.prompting)
            await backend.open()
            state.backend = backend
            serving(backend.n_ctx)
            await asyncio.to_thread(process.wait)
            if not process.closed:
                raise ToolkitError(f"{loading.path.name}: llama.cpp is gone: {process.ended()}")
        except ToolkitError as error:
            if not server.should_exit:
                failed.append(error)
        server.should_exit = True

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        server.should_exit = server.should_exit or stop.is_set()
        process = LlamaProcess(
            loading.path, n_ctx=loading.n_ctx, threads=loading.threads, parallel=loading.parallel, plain=True
        )
        watch = asyncio.create_task(load_and_watch(process))
        try:
            yield
        finally:
            await asyncio.to_thread(process.close)
            await watch
            if state.backend is not None:
                await state.backend.close()

    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    config = uvicorn.Config(
        make_app(state, lifespan),
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=ENDING_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run([opened])
    if failed:
        raise failed[0]
