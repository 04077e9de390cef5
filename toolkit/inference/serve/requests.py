"""What a client asks: the JSON of OpenAI's API, checked, as the toolkit's own turns and tools.

Fields that change the answer and can't be honoured are refused; fields that nobody here knows are left alone, as other
servers do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from toolkit.chats import Role, ToolCall, Turn
from toolkit.data.notes import Remarks, RowError
from toolkit.data.schema_rules import check_schema
from toolkit.data.schemas import read_tools
from toolkit.inference.serve.bounds import Refused
from toolkit.inference.serve.wording import refusal

MAX_MESSAGES = 1000
MAX_TOOLS = 128  # as OpenAI's own
MAX_DEPTH = 64  # of brackets in a body
MAX_STOPS = 8
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=500)]
# -1 is what clients of llama.cpp and LM Studio send for: as many as fit
Tokens = Annotated[
    Annotated[int, Field(ge=1, le=1 << 31)] | None, BeforeValidator(lambda value: None if value == -1 else value)
]
Kind = TypeVar("Kind", bound=BaseModel)
REFUSED = {
    "n": "one answer at a time",
    "best_of": "one answer at a time",
    "logit_bias": "no token is made likelier",
    "logprobs": "no probabilities are told",
    "top_logprobs": "no probabilities are told",
    "functions": "send tools",
    "function_call": "send tool_choice",
    "echo": "the prompt is not repeated",
    "suffix": "nothing is filled in",
    "audio": "text only",
    "images": "text only",
}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["text", "refusal"]
    text: str = ""
    refusal: str = ""


class _Function(BaseModel):
    model_config = ConfigDict(strict=True)
    name: Text
    arguments: str | dict[str, Any] = ""


class _Call(BaseModel):
    model_config = ConfigDict(strict=True)
    id: Text = ""
    type: Literal["function"] = "function"
    function: _Function


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: Text | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: Text | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None  # as Ollama's clients send them

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or part.refusal for part in self.content)
        return self.content or ""


class _Named(BaseModel):
    model_config = ConfigDict(strict=True)
    name: Text


class _Choice(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["function"]
    function: _Named


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class _ResponseFormat(BaseModel):
    model_config = ConfigDict(strict=True)
    type: str


class _Asked(BaseModel):
    """What both endpoints know."""

    model_config = ConfigDict(strict=True)
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _ChatAsked(_Asked):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None


class _TextAsked(_Asked):
    prompt: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn, in llama.cpp's words; `max_tokens` None: as many as fit."""

    values: dict[str, Any]
    max_tokens: int | None
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Turns and tools of a chat. `must`: names of which one has to be called, empty where none has to."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...]
    must: tuple[str, ...]
    parallel: bool
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class TextRequest:
    prompt: str
    sampling: Sampling


def read_json(body: bytes) -> dict[str, Any]:
    """A body's object. Raises `Refused` for what is not JSON, too deep, or text that can't be sent on."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        if _depth(value) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise Refused(400, "the body can't be read as JSON: nested too deeply") from None
    except ValueError as error:
        told = "half a character (a lone surrogate)" if isinstance(error, UnicodeEncodeError) else str(error)
        raise Refused(400, f"the body can't be read as JSON: {told[:200]}") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return value


def read_chat(body: dict[str, Any], default_tools: Sequence[dict[str, Any]] = ()) -> ChatRequest:
    """The body of /v1/chat/completions; `default_tools` are on offer where it has no `tools`. Raises `Refused`."""
    _refuse(body)
    asked = _validated(_ChatAsked, body)
    if asked.response_format is not None and asked.response_format.type != "text":
        raise Refused(400, "response_format: only text is supported; for JSON, offer a tool", param="response_format")
    tools = _tools(asked.tools) if asked.tools is not None else tuple(default_tools)
    names = [tool["function"]["name"] for tool in tools]
    must: tuple[str, ...] = ()
    if asked.tool_choice == "none":
        tools = ()
    elif asked.tool_choice == "required":
        must = tuple(names)
    elif isinstance(asked.tool_choice, _Choice):
        must = (asked.tool_choice.function.name,)
        if must[0] not in names:
            raise Refused(400, f"tool_choice: no tool {must[0]!r} is on offer", param="tool_choice")
    if asked.tool_choice == "required" and not names:
        raise Refused(400, 'tool_choice: "required" needs tools', param="tool_choice")
    return ChatRequest(
        tuple(_turns(asked.messages)),
        tools,
        must,
        asked.parallel_tool_calls is not False,
        _sampling(asked),
    )


def read_text(body: dict[str, Any]) -> TextRequest:
    """The body of /v1/completions. Raises `Refused`."""
    _refuse(body)
    if isinstance(body.get("prompt"), list) and len(body["prompt"]) == 1:
        body = {**body, "prompt": body["prompt"][0]}
    asked = _validated(_TextAsked, body)
    return TextRequest(asked.prompt, _sampling(asked))


def _sampling(asked: _Asked) -> Sampling:
    # Greedy unless asked otherwise, as `toolkit eval` and `toolkit chat` are. Else the plain distribution.
    values: dict[str, Any] = {"temperature": asked.temperature or 0.0}
    if asked.temperature:
        values |= {"top_k": 0, "top_p": 1.0 if asked.top_p is None else asked.top_p, "min_p": 0.0}
    if asked.seed is not None:
        values["seed"] = asked.seed % (1 << 32)
    for name in ("presence_penalty", "frequency_penalty"):
        if (value := getattr(asked, name)) is not None:
            values[name] = value
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if stops := [stop for stop in stops if stop]:  # an empty one would end every answer where it begins
        values["stop"] = stops
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Sampling(values, asked.max_completion_tokens or asked.max_tokens, bool(asked.stream), usage)


def _tools(given: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    for index, tool in enumerate(given):
        if tool.get("type") != "function":
            raise Refused(400, f'tools[{index}].type: wanted "function"', param="tools")
    try:
        tools = read_tools(given, Remarks()).schemas
    except RowError as error:
        raise Refused(400, str(error), param="tools") from None
    for index, tool in enumerate(tools):
        if reason := check_schema(tool["function"]["parameters"]):
            raise Refused(400, f"tools[{index}].function.parameters: no JSON schema: {reason}", param="tools")
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(400, f"tools: {twice!r} is there twice", param="tools")
    return tools


def _turns(messages: Sequence[_Message]) -> Iterator[Turn]:
    """Messages as turns. Results that follow an assistant's calls are put into the order of the calls, as in training;
    their tools' names are those of the calls."""
    pending: dict[str, _Call] = {}  # the last assistant turn's calls, by id
    results: dict[str, Turn] = {}
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == "tool":
            call = pending.get(message.tool_call_id or "")
            if call is None or call.id in results:
                told = f"no call {message.tool_call_id!r} waits for it" if message.tool_call_id else "no tool_call_id"
                raise Refused(400, f"{where}: a result, but {told}", param="messages")
            results[call.id] = Turn("tool", message.text, name=call.function.name)
            continue
        yield from _in_order(pending, results, where)
        pending, results = {}, {}
        if message.tool_calls:
            if message.role != "assistant":
                raise Refused(400, f"{where}: only the assistant calls tools", param="messages")
            pending = {call.id: call for call in message.tool_calls}
            if len(pending) < len(message.tool_calls):
                raise Refused(400, f"{where}: two calls have one id", param="messages")
        calls = (_call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(message.tool_calls or ()))
        role: Role = "system" if message.role == "developer" else message.role
        yield Turn(role, message.text, tuple(calls))
    yield from _in_order(pending, results, "the end")


def _in_order(pending: dict[str, _Call], results: dict[str, Turn], where: str) -> list[Turn]:
    missing = [name for name in pending if name not in results]
    if missing:
        raise Refused(400, f"{where}: the call {missing[0]!r} before it has no result", param="messages")
    return [results[name] for name in pending]


def _call(call: _Call, where: str) -> ToolCall:
    arguments: Any = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_refuse_constant) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise Refused(400, f"{where}: arguments are not JSON", param="messages") from None
    if not isinstance(arguments, dict) or _depth(arguments) > MAX_DEPTH:
        raise Refused(400, f"{where}: arguments are not a JSON object", param="messages")
    return ToolCall(call.function.name, arguments)


def _refuse(body: dict[str, Any]) -> None:
    for name, why in REFUSED.items():
        harmless: tuple[Any, ...] = (None, False, 1) if name in ("n", "best_of") else (None, False, 0, [], {}, "")
        if body.get(name) not in harmless:
            raise Refused(400, f"{name}: not supported: {why}", param=name, code="unsupported")


def _validated(kind: type[Kind], body: dict[str, Any]) -> Kind:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise refusal(error) from None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
    return depth


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
