"""A call format is a chat template: it renders system text, tools, calls and results, here and wherever a model goes.

`native` is the tokenizer's own template, word for word. The others put a preamble of ours (`toolkit/data/templates/`)
before it, which rewrites the messages and takes the tools away, so that a template that knows of no tools writes them
in its own markup:

    hermes   <tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>, tools between <tools> marks, results
             between <tool_response> marks in a user turn; what Qwen writes, and what llama.cpp, Ollama and vLLM read
    json     {"tool": "get_weather", "arguments": {"city": "Oslo"}}          one call a line
    jsonrpc  {"jsonrpc": "2.0", "id": 1, "method": "tools/call",             several calls are a JSON-RPC batch (an
              "params": {"name": "get_weather", "arguments": {...}}}         array); ids count from 1 within a turn

Results in `json` are the tool's text as it is, in `jsonrpc` responses {"jsonrpc": "2.0", "id": 1, "result": TEXT} whose
result is the tool's text as a JSON string (a template can't read JSON); where the model's template takes no tool turns,
both stand between <tool_response> marks in a user turn. With data.thinking = "split" the preamble also turns thinking
off for good, as that is all that the model is trained for.

The first line of a preamble says what it is, so that a template tells its own call format wherever it is found.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.data.clock import CLOCK
from toolkit.errors import DataError

CallFormat = Literal["native", "hermes", "json", "jsonrpc"]
ToolPrompt = Literal["signature", "schema"]
Thinking = Literal["template", "split"]

FILE = "chat_template.jinja"  # transformers' name for it
END = "{#- toolkit: the model's own template follows #}"
NO_THINKING = "{%- set enable_thinking = false %}"
_HEAD = re.compile(
    r"\{#- toolkit: call_format = (native|hermes|json|jsonrpc), tool_prompt = (signature|schema), "
    r"thinking = (template|split) -#\}"
)


@dataclass(frozen=True, slots=True)
class Rendering:
    """The recipe's data settings that decide a chat's text."""

    call_format: CallFormat = "native"
    tool_prompt: ToolPrompt = "signature"
    thinking: Thinking = "template"

    @classmethod
    def of(cls, data: Any) -> Rendering:
        """Of a recipe's `data` section or an export.json's."""
        return cls(data.call_format, data.tool_prompt, data.thinking)

    def __str__(self) -> str:
        return f"call_format = {self.call_format}, tool_prompt = {self.tool_prompt}, thinking = {self.thinking}"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What renders a model's chats. text: a Jinja template that does all of it.

    None: of a run from before runs kept their template. `native` chats are rendered by the tokenizer's own, others as
    `toolkit.data.legacy` does.
    """

    rendering: Rendering
    text: str | None

    @classmethod
    def of(cls, text: str) -> ChatTemplate:
        return cls(rendering_of(text), text)

    @classmethod
    def read(cls, folder: Path, otherwise: Rendering | None = None) -> ChatTemplate | None:
        """The template that `folder` keeps; else that of an old run with the settings `otherwise`."""
        path = folder / FILE
        if path.is_file():
            return cls.of(path.read_text(encoding="utf-8"))
        return cls(otherwise, None) if otherwise is not None else None

    @property
    def dated(self) -> bool:
        """Whether it asks for the date."""
        return CLOCK in (self.text or "")

    def __str__(self) -> str:
        return f"{self.rendering}{'' if self.text is not None else ', as before runs kept their template'}"


def rendering_of(text: str) -> Rendering:
    """What a template says of itself; one that says nothing is a model's own."""
    head = _HEAD.match(text)
    return Rendering(head[1], head[2], head[3]) if head else Rendering()  # type: ignore[arg-type]


def own_template(tokenizer: Any, call_format: CallFormat) -> tuple[str, str]:
    """The tokenizer's chat template, and what it is called where there are several: one is used throughout.

    `native` takes the one for tools (`tool_use`), the others the plain one (`default`). Raises `DataError`.
    """
    templates = getattr(tokenizer, "chat_template", None)
    if not templates:
        raise DataError("model.name: the tokenizer has no chat template; take the instruct version of the model")
    if isinstance(templates, str):
        return templates, ""
    wanted = ("tool_use", "default") if call_format == "native" else ("default", "tool_use")
    name = next((name for name in wanted if name in templates), "")
    if not name and len(templates) == 1:
        name = next(iter(templates))
    if not name:
        raise DataError(
            f"the tokenizer has several chat templates ({', '.join(sorted(templates))}) and none is called default or "
            "tool_use; leave one in its folder, as chat_template.jinja"
        )
    return str(templates[name]), name


def templated(tokenizer: Any, text: str) -> Any:
    """The same tokenizer with another chat template."""
    other = copy.copy(tokenizer)
    other.chat_template = text
    return other


def model_part(text: str) -> str:
    """A template without the preamble that `compose` put before it."""
    if not _HEAD.match(text):
        return text
    return text.partition(END)[2].removeprefix("\n")


def with_thinking(tokenizer: Any) -> Any:
    """The tokenizer, its template without what turns thinking off for good: a template that does so opens the turn to
    come otherwise than the turns before."""
    text = tokenizer.chat_template
    if not isinstance(text, str) or rendering_of(text).thinking == "template":
        return tokenizer
    return templated(tokenizer, text.replace(NO_THINKING, "", 1))
