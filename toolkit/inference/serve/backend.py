"""llama.cpp behind the endpoints: one model in a process of its own, asked over its Unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from toolkit.chats import Turn
from toolkit.errors import DataError, ModelError, first_line
from toolkit.inference.gguf import BEGINNINGS, begun, openai_message, put_before, tokenizing
from toolkit.inference.prompting import Prompting
from toolkit.inference.serve.bounds import Refused
from toolkit.inference.serve.requests import Sampling

SLICE = 16_384  # characters that are tokenised at once while it is not known whether a prompt fits
PREPARE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's ids, and the text that it ends in."""

    ids: list[int]
    tail: str


@dataclass(slots=True)
class Piece:
    """A piece of an answer; the last one says how it ended: "stop" or "length". cut: not by the model itself."""

    text: str
    finish: str | None = None
    prompt_tokens: int = 0
    new_tokens: int = 0
    cut: bool = False


class Backend:
    """Asks llama.cpp, over its Unix socket (`transport`). n_ctx: tokens of one chat.

    Its methods raise `Refused` where it refuses what a client sent, and when it is gone.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, name: str, prompting: Prompting, n_ctx: int = 0) -> None:
        self.name, self.prompting, self.n_ctx = name, prompting, n_ctx
        self._client = httpx.AsyncClient(transport=transport, base_url="http://llama.cpp", timeout=None)
        self._preparing = asyncio.Semaphore(1)  # long prompts are read one after the other
        self._first: list[int] | None = None

    async def open(self) -> None:
        """Learn how long a chat may be: no longer than asked for, nor than the model was made for."""
        self.n_ctx = int((await self._ask("/props"))["default_generation_settings"]["n_ctx"])

    async def close(self) -> None:
        await self._client.aclose()

    async def chat_prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> Prompt:
        """The prompt for a chat, as training had it."""
        if self.prompting.renderer is not None:
            try:
                return await self.text_prompt(await asyncio.to_thread(self.prompting.rendered, turns, tools))
            except DataError as error:
                raise Refused(400, first_line(error), param="messages") from None
        try:
            given = self.prompting.given(turns, tools)
        except ModelError as error:
            raise Refused(400, str(error), param="tools") from None
        body: dict[str, Any] = {"messages": [openai_message(message) for message in given.messages]}
        if given.tools:
            # with a choice llama.cpp would make a parser of the schemas, and refuse some: calls are read here
            body |= {"tools": given.tools, "tool_choice": "none"}
        if options := self.prompting.options:
            body["chat_template_kwargs"] = options
        answer = await self._ask("/apply-template", body)
        return await self.text_prompt(answer["prompt"])

    async def text_prompt(self, text: str) -> Prompt:
        """A prompt's ids, behind the token that begins a text where the file wants one: what llama.cpp takes off what a
        template writes, and training's renderer does not.

        Raises `Refused` when they leave no room for an answer.
        """
        most = self.n_ctx - 1
        async with self._preparing:
            if len(text) > SLICE:  # llama.cpp takes minutes over a megabyte of some texts
                found = 0
                for start in range(0, len(text), SLICE):
                    found += len(await self._tokenize(text[start : start + SLICE]))
                    if found - start // SLICE * 2 > most:  # a cut may make two tokens more
                        raise _too_long(f"more than {most}", self.n_ctx)
            if self._first is None:
                self._first = put_before(*[(await self._ask("/tokenize", body))["tokens"] for body in BEGINNINGS])
            ids = await self._tokenize(text)
        if not ids:
            raise Refused(400, "the prompt is empty", param="prompt")
        ids = begun(ids, self._first)
        if len(ids) > most:
            raise _too_long(str(len(ids)), self.n_ctx)
        return Prompt(ids, text[-100:])

    async def answer(self, prompt: Prompt, sampling: Sampling, more: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """What the model writes, piece by piece, to the end. To leave early stops it."""
        room = self.n_ctx - len(prompt.ids)
        body = {"prompt": prompt.ids, "n_predict": min(sampling.max_tokens or room, room), "stream": True}
        try:
            async with self._client.stream("POST", "/completion", json=body | sampling.values | more) as response:
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise _refusal(int(event["error"].get("code", 500)), json.dumps(event).encode())
                    piece = _piece(event)
                    yield piece
                    if piece.finish:
                        return
        except httpx.HTTPError:
            pass
        raise _gone()

    async def _tokenize(self, text: str) -> list[int]:
        found: list[int] = (await self._ask("/tokenize", tokenizing(text)))["tokens"]
        return found

    async def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            method = "GET" if body is None else "POST"
            response = await self._client.request(method, path, json=body, timeout=PREPARE_SECONDS)
        except httpx.TimeoutException:
            raise Refused(503, f"the prompt was not ready within {PREPARE_SECONDS:.0f} seconds") from None
        except httpx.HTTPError:
            raise _gone() from None
        if response.status_code != 200:
            raise _refusal(response.status_code, response.content)
        answer: dict[str, Any] = response.json()
        return answer


def _piece(event: dict[str, Any]) -> Piece:
    finish = None
    if event.get("stop"):
        finish = "length" if event.get("stop_type") == "limit" else "stop"
    return Piece(
        str(event.get("content") or ""),
        finish,
        event.get("tokens_evaluated", 0),
        event.get("tokens_predicted", 0),
        cut=event.get("stop_type") in ("limit", "word"),
    )


def _refusal(status: int, body: bytes) -> Refused:
    """llama.cpp's own error, without what it may tell of this machine."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        message = str(error["message"]).strip().splitlines()[0][:300]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        message = "no reason given"
    return Refused(400 if 400 <= status < 500 else 500, f"llama.cpp: {message}")


def _gone() -> Refused:
    return Refused(503, "the model is not running any more", code="unavailable")


def _too_long(tokens: str, n_ctx: int) -> Refused:
    return Refused(
        400,
        f"the prompt has {tokens} tokens, and the context is {n_ctx} (--context)",
        code="context_length_exceeded",
        param="messages",
    )
