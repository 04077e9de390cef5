"""Answers in OpenAI's shapes, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from toolkit.inference.gguf import MARKS
from toolkit.inference.serve.backend import Backend, Piece, Prompt
from toolkit.inference.serve.bounds import Refused
from toolkit.inference.serve.calls import THINK, AnswerReader, Delta
from toolkit.inference.serve.grammar import BEGINNINGS, call_grammar
from toolkit.inference.serve.requests import ChatRequest, Sampling, TextRequest

TRIGGER_WORD = 1  # llama.cpp's COMMON_GRAMMAR_TRIGGER_TYPE_WORD
Told = AsyncGenerator[tuple[list[Delta], Piece], None]


class Answer(Protocol):
    """An answer that is being written. `kinds`: what its whole and its chunks are called."""

    kinds: tuple[str, str]
    prefix: str

    @property
    def sampling(self) -> Sampling: ...

    async def prepare(self) -> Prompt: ...

    def told(self, prompt: Prompt) -> Told:
        """Each piece, and the deltas that it makes certain."""
        ...

    def choice(self, deltas: list[Delta], finish: str | None) -> dict[str, Any]:
        """The whole answer."""
        ...

    def chunk(self, delta: Delta, finish: str | None) -> dict[str, Any]: ...


@dataclass(slots=True)
class ChatAnswer:
    backend: Backend
    asked: ChatRequest
    kinds = ("chat.completion", "chat.completion.chunk")
    prefix = "chatcmpl"

    @property
    def sampling(self) -> Sampling:
        return self.asked.sampling

    async def prepare(self) -> Prompt:
        form = self.backend.prompting.call_format
        if self.asked.must and form not in BEGINNINGS:
            told = f"this model writes calls in a form of its own ({form}) that can't be forced; wanted auto or none"
            raise Refused(400, f"tool_choice: {told}", param="tool_choice")
        return await self.backend.chat_prompt(self.asked.turns, self.asked.tools)

    async def told(self, prompt: Prompt) -> Told:
        asked, call_format = self.asked, self.backend.prompting.call_format
        more: dict[str, Any] = {"preserved_tokens": MARKS}
        may = [tool for tool in asked.tools if not asked.must or tool["function"]["name"] in asked.must]
        if asked.must:
            thinks = THINK in self.backend.prompting.template
            more["grammar"] = call_grammar(may, call_format, parallel=asked.parallel, thinks=thinks)
        elif may and call_format in BEGINNINGS:
            # from where a call begins: what comes before is free, but no call is of a tool that is not on offer
            more["grammar"] = call_grammar(may, call_format, parallel=asked.parallel, begun=True)
            more["grammar_lazy"] = True
            more["grammar_triggers"] = [{"type": TRIGGER_WORD, "value": BEGINNINGS[call_format]}]
        thinking = prompt.tail.rstrip().endswith(THINK)
        reader = AnswerReader(call_format, bool(asked.tools), thinking, asked.parallel, asked.tools)
        async with aclosing(self.backend.answer(prompt, self.sampling, more)) as pieces:
            async for piece in pieces:
                deltas = list(reader.feed(piece.text))
                if piece.finish:
                    deltas += reader.finish(cut=piece.cut)
                    # a limit is told also behind whole calls, as OpenAI does: more may have been to come
                    piece.finish = "tool_calls" if reader.calls and piece.finish == "stop" else piece.finish
                yield deltas, piece

    def choice(self, deltas: list[Delta], finish: str | None) -> dict[str, Any]:
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        content = _joined(deltas, "content")
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
        if thought := _joined(deltas, "reasoning_content"):
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in calls]
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}

    def chunk(self, delta: Delta, finish: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


@dataclass(slots=True)
class TextAnswer:
    backend: Backend
    asked: TextRequest
    kinds = ("text_completion", "text_completion")
    prefix = "cmpl"

    @property
    def sampling(self) -> Sampling:
        return self.asked.sampling

    async def prepare(self) -> Prompt:
        return await self.backend.text_prompt(self.asked.prompt)

    async def told(self, prompt: Prompt) -> Told:
        async with aclosing(self.backend.answer(prompt, self.sampling, {})) as pieces:
            async for piece in pieces:
                yield [{"text": piece.text}] if piece.text else [], piece

    def choice(self, deltas: list[Delta], finish: str | None) -> dict[str, Any]:
        return {"index": 0, "text": _joined(deltas, "text"), "logprobs": None, "finish_reason": finish}

    def chunk(self, delta: Delta, finish: str | None) -> dict[str, Any]:
        return self.choice([delta], finish)


async def respond(request: Request, name: str, answer: Answer) -> Response:
    """Write the answer, unless the client goes away. Raises `Refused` as long as nothing has been sent."""
    head = {"id": f"{answer.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
    prompt = await _unless_left(request, answer.prepare())
    told = answer.told(prompt)
    if answer.sampling.stream:
        first = await _unless_left(request, anext(told))
        return _EventStream(_events(answer, head, told, first))
    deltas, last = await _unless_left(request, _all(told))
    whole = {"object": answer.kinds[0], "choices": [answer.choice(deltas, last.finish)], "usage": _usage(last)}
    return JSONResponse(head | whole)


async def _all(told: Told) -> tuple[list[Delta], Piece]:
    async with aclosing(told):
        found = [one async for one in told]
    return [delta for deltas, _ in found for delta in deltas], found[-1][1]


async def _events(
    answer: Answer, head: dict[str, Any], told: Told, first: tuple[list[Delta], Piece]
) -> AsyncGenerator[str, None]:
    """The chunks of an answer. What goes wrong now is an event too."""
    head = {**head, "object": answer.kinds[1]}

    def events(deltas: list[Delta], piece: Piece) -> list[str]:
        choices = [answer.chunk(delta, None) for delta in deltas]
        choices += [answer.chunk({}, piece.finish)] if piece.finish else []
        return [_event(head | {"choices": [choice]}) for choice in choices]

    async with aclosing(told):
        try:
            if isinstance(answer, ChatAnswer):
                yield _event(head | {"choices": [answer.chunk({"role": "assistant", "content": ""}, None)]})
            for event in events(*first):
                yield event
            piece = first[1]
            async for deltas, piece in told:
                for event in events(deltas, piece):
                    yield event
            if answer.sampling.include_usage:
                yield _event(head | {"choices": [], "usage": _usage(piece)})
            yield "data: [DONE]\n\n"
        except Refused as refused:
            yield _event(refused.body)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _usage(last: Piece) -> dict[str, int]:
    prompt, new = last.prompt_tokens, last.new_tokens
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _joined(deltas: list[Delta], key: str) -> str:
    return "".join(delta.get(key, "") for delta in deltas)


class _EventStream(StreamingResponse):
    """Stops the model when the client goes away."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.events):
            await super().__call__(scope, receive, send)


class Left(Exception):
    """The client went away before its answer was there."""


async def _unless_left(request: Request, work: Any) -> Any:
    """What `work` gives. Raises `Left` when the client goes away first, and stops the work."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Left
        return task.result()
    finally:
        for one in (task, watch):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one
