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
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import DataError

CallFormat = Literal["native", "hermes", "json", "jsonrpc"]
ToolPrompt = Literal["signature", "schema"]
Thinking = Literal["template", "split"]

FILE = "chat_template.jinja"  # transformers' name for it
_END = "{#- toolkit: the model's own template follows #}"
_NO_THINKING = "{%- set enable_thinking = false %}"
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

    def __str__(self) -> str:
        return f"{self.rendering}{'' if self.text is not None else ', as before runs kept their template'}"


def rendering_of(text: str) -> Rendering:
    """What a template says of itself; one that says nothing is a model's own."""
    head = _HEAD.match(text)
    return Rendering(head[1], head[2], head[3]) if head else Rendering()  # type: ignore[arg-type]


def compose(tokenizer: Any, rendering: Rendering, *, as_before: bool = False) -> str:
    """The chat template that renders as `rendering` says, in the markup of the tokenizer's own.

    `as_before` gives what `toolkit.data.legacy` writes, as far as a template can: its signatures leave out a few more
    descriptions. Raises `DataError` when there is no template, when it can't be understood, or when the two don't go
    together.
    """
    from toolkit.data.markup import probe

    own, _ = own_template(tokenizer, rendering.call_format)
    if rendering.call_format == "native":
        if rendering.thinking == "template":
            return own
        said = rendering_of(own)
        if said.call_format == "native":
            return _joined(rendering, [_NO_THINKING], model_part(own))
        rendering = Rendering(said.call_format, said.tool_prompt, rendering.thinking)
    own = model_part(own)
    known = probe(templated(tokenizer, own))
    role = {"hermes": "user", "json": "each", "jsonrpc": "tool"}[rendering.call_format] if known.tool_role else "user"
    parts = [f"{{%- set toolkit_role = '{role}' %}}"]
    if rendering.thinking == "split":
        parts.append(_NO_THINKING)
    parts += [_part(rendering.tool_prompt), _part(rendering.call_format)]
    if as_before:
        parts.append(_part(f"{rendering.call_format}_before"))
    parts.append(_part("messages"))
    text = _joined(rendering, parts, own)
    composed = probe(templated(tokenizer, text))
    if not composed.tools or (composed.header, composed.end) != (known.header, known.end):
        why = composed.why_no_tools or f"assistant turns open with {composed.header!r} in place of {known.header!r}"
        raise DataError(
            f"data.call_format = \"{rendering.call_format}\" can't be put before the model's chat template: {why}; "
            'the model needs a template with system turns, or one that knows tools (data.call_format = "native")'
        )
    return text


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
    return text.partition(_END)[2].removeprefix("\n")


def with_thinking(tokenizer: Any) -> Any:
    """The tokenizer, its template without what turns thinking off for good: a template that does so opens the turn to
    come otherwise than the turns before."""
    text = tokenizer.chat_template
    if not isinstance(text, str) or rendering_of(text).thinking == "template":
        return tokenizer
    return templated(tokenizer, text.replace(_NO_THINKING, "", 1))


def _joined(rendering: Rendering, parts: list[str], own: str) -> str:
    # An engine drops the line break after a block: one must stand there where the model's part begins with blank space.
    gap = "\n" if own[:1].isspace() else ""
    return "\n".join(part.strip() for part in [f"{{#- toolkit: {rendering} -#}}", *parts, _END]) + gap + own


def _part(name: str) -> str:
    return resources.files("toolkit.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
