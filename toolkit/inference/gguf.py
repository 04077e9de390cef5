"""A GGUF file in llama.cpp, through `xllamacpp`: llama.cpp's own server, in a process of its own.

What is measured here is what the user's llama.cpp, Ollama or LM Studio does with the file: its tokenizer, its template
engine, its arithmetic.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from toolkit.data.call_forms import CALL_MARKS
from toolkit.data.special_text import parts_of
from toolkit.errors import EngineError, ModelError, ToolkitError, first_line
from toolkit.hardware import free_cores
from toolkit.inference.decode import Done, Generated
from toolkit.inference.meter import Meter
from toolkit.inference.process import LlamaProcess

INSTALL = "pip install 'toolkit[serve]'"
HEADERS = {"Content-Type": "application/json"}
# Of the special tokens that a vocabulary may have, those that are written out for people too.
MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>", *CALL_MARKS)
BEGINNINGS = tuple({"content": "a", "add_special": add} for add in (True, False))  # bodies for /tokenize
Message = dict[str, Any]


def runtime() -> Any:
    """The module xllamacpp. Raises `EngineError` with what to do when it is not installed or can't load here."""
    try:
        import xllamacpp  # of the extra `serve`
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise EngineError(f"running a GGUF needs xllamacpp, which is not installed: {INSTALL}") from None
    except (ImportError, OSError) as error:  # the wheel is for another glibc or CPU
        raise EngineError(
            f"xllamacpp is installed but can't load here ({first_line(error)}): its wheels are for x86-64 and arm64 "
            f"Linux with glibc 2.17 or later, macOS and Windows; {INSTALL} --force-reinstall, or run the "
            "model folder instead"
        ) from None
    return xllamacpp


@dataclass(frozen=True, slots=True)
class TopTokens:
    """The most probable next tokens at one place: ids and natural logarithms of their probabilities, highest first."""

    ids: list[int]
    logprobs: list[float]


class GgufModel:
    """A GGUF file ready to run; a context manager.

    n_ctx: most tokens of a prompt and its answer together, for each of `parallel` prompts that are decoded at once.
    threads: CPU threads; default: the cores that are free now, as threads that wait for a busy core cost more than
    they give.
    lora: a LoRA GGUF that is put over the model.
    plain: for people, not for measuring: special tokens are not written out in what is generated.

    Raises `EngineError` when there is no runtime, `ModelError` when the file can't be loaded.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int = 4096,
        threads: int | None = None,
        lora: Path | None = None,
        parallel: int = 1,
        plain: bool = False,
    ) -> None:
        self.path = path
        self.n_ctx = n_ctx
        self.parallel = parallel
        self.plain = plain
        self.threads = threads or free_cores()
        runtime()
        self.process = LlamaProcess(path, n_ctx=n_ctx, threads=self.threads, parallel=parallel, lora=lora, plain=plain)
        self.process.ready()
        self._plain: int | None = None
        self._first: list[int] | None = None

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and free the model."""
        self.process.close()

    @property
    def n_vocab(self) -> int:
        return int(self._ask("/v1/models")["data"][0]["meta"]["n_vocab"])

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Ids by llama.cpp's tokenizer. Control tokens in the text are read as such, unless `special` is False; none
        are added."""
        return list(self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"])

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens written out."""
        return str(self._ask("/detokenize", {"tokens": list(ids)})["content"])

    def put_before(self) -> list[int]:
        """The tokens that llama.cpp puts before every prompt: the one that begins a text, or none."""
        if self._first is None:
            self._first = put_before(*(self._ask("/tokenize", body)["tokens"] for body in BEGINNINGS))
        return self._first

    def prompt_ids(self, text: str) -> list[int]:
        """A prompt's ids, behind the token that begins a text where the file wants one. Of a text that begins with it,
        as training's templates write theirs, llama.cpp itself would make two."""
        return begun(self._ask("/tokenize", tokenizing(text))["tokens"], self.put_before())

    def apply_template(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None, **options: Any
    ) -> str:
        """The prompt that llama.cpp renders for chat messages (OpenAI's shape) with the template inside the file.

        `options` go to the template, as enable_thinking=False. Raises `ModelError` when the template refuses them.
        """
        body: dict[str, Any] = {"messages": [openai_message(message) for message in messages]}
        if tools:
            # without a choice llama.cpp makes a parser of the tools, and refuses schemas that it can't make one of
            body |= {"tools": list(tools), "tool_choice": "none"}
        if options:
            body["chat_template_kwargs"] = options
        return str(self._ask("/apply-template", body)["prompt"])

    def complete(
        self,
        prompts: Sequence[Sequence[int]] | Sequence[str],
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int] = (),
        temperature: float = 0.0,
        seed: int = 0,
        done: Callable[[int, list[int]], None] | None = None,
    ) -> list[list[int]]:
        """New ids of each prompt, greedy at temperature 0; the stop token, where one was reached, is the last of them.

        llama.cpp stops at the tokens that end a turn or a text in its own view; `stop_ids` stop as well. `parallel`
        prompts are decoded at a time; `done(index, ids)` is called for one after the other, in their order.
        Raises `ModelError` when a prompt and its answer do not fit into `n_ctx`.
        """
        stops = frozenset(stop_ids)

        def one(prompt: Sequence[int] | str) -> list[int]:
            body = self._body(prompt, max_new_tokens, temperature, seed) | {"return_tokens": True}
            answer = self._ask("/completion", body)
            if answer["stop_type"] == "limit" and len(answer["tokens"]) < max_new_tokens:
                raise self._too_long(answer["tokens_evaluated"] + max_new_tokens)
            return cut_at_stop(answer["tokens"], stops)

        made: dict[int, list[int]] = {}
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                for index, ids in enumerate(pool.map(one, prompts)):
                    made[index] = ids
                    if done is not None:
                        done(index, ids)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [made[index] for index in range(len(prompts))]

    def stream(
        self,
        prompt: Sequence[int] | str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """What the model writes after one prompt, piece by piece, without the token that ends it."""
        body = self._body(prompt, max_new_tokens, temperature, seed)
        body |= {"stream": True, "return_tokens": True}
        last, token = "", -1
        for event in self._events("/completion", body):
            if event.get("stop"):
                # the token that ended the text has been told as any other, and where special tokens are shown, shown
                end = self.detokenize([token]) if event.get("stop_type") == "eos" and token >= 0 else ""
                if rest := last.removesuffix(end):
                    yield rest
                return
            if event.get("content"):
                if last:
                    yield last
                last, token = event["content"], (event.get("tokens") or [-1])[-1]
            elif event.get("tokens"):
                token = -1  # nothing is shown of it

    def _events(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """The server's events, one by one. Leaving early makes the server stop."""
        with self._connection() as connection:
            for line in self._send(connection, path, body):
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                event = json.loads(line[len(b"data: ") :])
                if "error" in event:
                    raise self._failed(event["error"])
                yield event

    def logprobs(self, ids: Sequence[int], positions: Sequence[int], *, top: int = 100) -> list[TopTokens]:
        """The `top` most probable tokens at each of `positions`: those that follow ids[:position].

        One forward step a position, from the cache of the one before where positions ascend. A top of `n_vocab` gives
        the whole distribution, but costs seconds a position with a large vocabulary.
        """
        if self._plain is None:
            self._plain = self.tokenize("a")[0]
        found = []
        for position in positions:
            body = self._body(list(ids[:position]), 1, 0.0, 0)
            # Nothing is told of a sampled token that ends the text or is half a character, so a plain one is sampled.
            # The probabilities are those before any bias.
            body |= {
                "n_probs": top,
                "logit_bias": [[self._plain, 1e6]],
                "response_fields": ["completion_probabilities"],
            }
            tokens = self._ask("/completion", body)["completion_probabilities"][0]["top_logprobs"]
            found.append(TopTokens([one["id"] for one in tokens], [one["logprob"] for one in tokens]))
        return found

    def _body(self, prompt: Sequence[int] | str, max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        given = self.prompt_ids(prompt) if isinstance(prompt, str) else list(prompt)
        body: dict[str, Any] = {
            "prompt": given,
            "n_predict": max_new_tokens,
            "temperature": temperature,
            "cache_prompt": True,
        }
        if self.plain:
            body["preserved_tokens"] = list(MARKS)
        if temperature:  # the plain distribution, as transformers samples it with top_k=0 and top_p=1
            body |= {"seed": seed, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        return body

    def _send(self, connection: http.client.HTTPConnection, path: str, body: Any) -> http.client.HTTPResponse:
        # ASCII only: lone surrogates, which JSON allows, could not be encoded otherwise
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), HEADERS)
        response = connection.getresponse()
        if response.status != 200:
            try:
                told = json.loads(response.read())["error"]
            except (ValueError, KeyError, TypeError):
                told = {"message": f"answered {response.status} to {path}"}
            raise self._failed(told)
        return response

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        """A connection to the server. Raises `EngineError` when llama.cpp ends under it."""
        if self.process.closed:
            raise ValueError("the model is closed")
        with contextlib.closing(self.process.connect()) as connection:
            try:
                yield connection
            except (OSError, http.client.HTTPException):
                raise EngineError(f"{self.path.name}: llama.cpp is gone: {self.process.ended()}") from None

    def _ask(self, path: str, body: Any = None) -> Any:
        with self._connection() as connection:
            return json.loads(self._send(connection, path, body).read())

    def _failed(self, error: dict[str, Any]) -> ToolkitError:
        if error.get("type") == "exceed_context_size_error":
            return self._too_long(error.get("n_prompt_tokens"))
        kind = ModelError if error.get("type") == "invalid_request_error" else ToolkitError
        return kind(f"{self.path.name}: llama.cpp: {error.get('message', error)}")

    def _too_long(self, tokens: Any) -> ModelError:
        return ModelError(
            f"{self.path.name}: {tokens} tokens of prompt and answer don't fit into a context of {self.n_ctx}; "
            "take a longer one"
        )


@dataclass(slots=True)
class GgufDecoder:
    """Decodes rendered prompts with a `GgufModel`: a `toolkit.inference.decode.Decoder`."""

    model: GgufModel
    stop_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    progress: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.model.parallel,
            "temperature": self.temperature,
            "runtime": f"llama.cpp (xllamacpp {runtime().__version__})",
        }

    def __call__(self, prompts: Sequence[str], done: Done | None = None) -> list[Generated]:
        """Text without the stop token, by llama.cpp's tokenizer both ways."""
        made: list[Generated] = []
        with Meter(len(prompts), self.progress) as meter:

            def one_done(index: int, ids: list[int]) -> None:
                made.append(self.read(ids))
                meter.one_done(len(ids))
                if done is not None:
                    done(index, made[-1])

            self.model.complete(
                prompts,
                max_new_tokens=self.max_new_tokens,
                stop_ids=self.stop_ids,
                temperature=self.temperature,
                seed=self.seed,
                done=one_done,
            )
        return made

    def read(self, ids: list[int]) -> Generated:
        """What new ids say; they end in a stop token or at the limit."""
        stopped = bool(ids) and (ids[-1] in self.stop_ids or len(ids) < self.max_new_tokens)
        text = self.model.detokenize(ids[:-1] if stopped else ids)
        return Generated(text, len(ids), stopped)


def tokenizing(prompt: str) -> dict[str, Any]:
    """What /tokenize is asked for a rendered prompt: its control tokens are read as such, but for what a chat's own
    text spells."""
    return {"content": parts_of(prompt), "add_special": False, "parse_special": True}


def put_before(begun: list[int], plain: list[int]) -> list[int]:
    """What llama.cpp puts before every text, of its answers to the two requests of `BEGINNINGS`."""
    return begun[: len(begun) - len(plain)]


def begun(ids: list[int], first: list[int]) -> list[int]:
    """Ids that begin with `first`, once."""
    return ids if ids[: len(first)] == first else first + ids


def cut_at_stop(ids: list[int], stops: frozenset[int]) -> list[int]:
    """Ids up to the first stop token, which is kept."""
    end = next((index for index, token in enumerate(ids) if token in stops), None)
    return ids if end is None else ids[: end + 1]


def openai_message(message: Message) -> Message:
    """A message as the OpenAI API has it: arguments of calls as JSON text."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for number, call in enumerate(message["tool_calls"], 1):
        function = call["function"]
        arguments = function["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append({"id": f"call_{number}", **call, "function": {**function, "arguments": text}})
    return {**message, "tool_calls": calls}
