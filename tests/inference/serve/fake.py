"""llama.cpp's server as `toolkit serve` meets it, with planted answers; and the real front of it on a real port."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from toolkit.data.special_text import pattern_of
from toolkit.data.template import Rendering
from toolkit.inference.prompting import Prompting
from toolkit.inference.serve.app import State, make_app
from toolkit.inference.serve.backend import Backend
from toolkit.inference.serve.bounds import Limits, hosts_of


@dataclass
class FakeLlama:
    """Says `text`, three characters at a time. A prompt is what the template was given, as JSON; a character is a
    token. `asked` keeps what /completion was asked."""

    text: str = "Hello."
    stop_type: str = "eos"
    asked: list[dict[str, Any]] = field(default_factory=list)
    tokenized: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/apply-template":
            return httpx.Response(200, json={"prompt": json.dumps(body)})
        if request.url.path == "/tokenize":
            text = "".join(body["content"])
            self.tokenized += len(text)
            return httpx.Response(200, json={"tokens": [ord(one) for one in text]})
        assert request.url.path == "/completion"
        self.asked.append(body)
        return httpx.Response(200, stream=_Stream(list(self._events(len(body["prompt"])))))

    def _events(self, prompt: int) -> Iterator[bytes]:
        pieces = [self.text[i : i + 3] for i in range(0, len(self.text), 3)]
        events: list[dict[str, Any]] = [{"content": piece, "stop": False} for piece in pieces]
        events.append(
            {
                "content": "",
                "stop": True,
                "stop_type": self.stop_type,
                "tokens_evaluated": prompt,
                "tokens_predicted": len(pieces),
            }
        )
        for event in events:
            yield f"data: {json.dumps(event)}\n\n".encode()

    @property
    def given(self) -> dict[str, Any]:
        """What the template was given for the last answer."""
        value: dict[str, Any] = json.loads("".join(map(chr, self.asked[-1]["prompt"])))
        return value


class _Stream(httpx.AsyncByteStream):
    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


def backend(llama: FakeLlama, call_format: str = "native", n_ctx: int = 100_000) -> Backend:
    rendering = Rendering(call_format, "signature", "template")  # type: ignore[arg-type]
    return Backend(httpx.MockTransport(llama), "fake", Prompting("{{ tools }}", rendering, pattern_of(())), n_ctx)


@contextlib.contextmanager
def served(state: State) -> Iterator[int]:
    """The endpoints on a port of loopback. `state.limits` is made to answer to it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = int(listening.getsockname()[1])
        hosts = hosts_of(port) if state.limits.hosts is None else state.limits.hosts
        state.limits = Limits(hosts, state.limits.origins, state.limits.key, state.limits.max_body, 1)
        config = uvicorn.Config(make_app(state), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield port
        finally:
            server.should_exit = True
            thread.join()
