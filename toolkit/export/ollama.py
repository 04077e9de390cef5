"""An Ollama Modelfile: the chat template in Go's template language, with tools, and parameters that fit the training.

Ollama does not run a GGUF's own (Jinja) chat template, so this one is written by hand for the ChatML family, which
Qwen3 and SmolLM2 are of. Where it can't be the same as in training, which is the spelling of JSON (Go writes no spaces
and sorts keys), and for models trained on tool signatures the schemas in their place, the Modelfile says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.markup import Markup, probe, render
from toolkit.data.template import Rendering, compose, templated
from toolkit.errors import DataError
from toolkit.export.layout import DataRecord

OPEN, CLOSE = "<|im_start|>", "<|im_end|>"
_EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class _Style:
    """How one call format writes tools, calls and results in Go's template language."""

    tools: str
    call: str
    result: tuple[str, str]
    result_role: str


_HERMES = _Style(
    # Qwen3's own words
    tools=(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>{{ range .Tools }}\n"
        '{"type": "function", "function": {{ .Function }}}{{ end }}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    ),
    call='<tool_call>\n{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}\n</tool_call>',
    result=("<tool_response>\n", "\n</tool_response>"),
    result_role="user",
)
_CALLS = {
    "hermes": _HERMES.call,
    "json": '{"tool": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}',
    "jsonrpc": '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "{{ .Function.Name }}", '
    '"arguments": {{ .Function.Arguments }}}}',
}


def modelfile(
    gguf: Path,
    tokenizer: Any,
    data: DataRecord | None,
    *,
    max_length: int | None,
    context: int,
) -> str:
    """The text of a Modelfile for `gguf`, which lies beside it.

    `context` is the model's longest; `max_length` that of training. Without a recipe the calls are the chat template's
    own, where it has any.
    """
    markup = probe(tokenizer)
    length = min(context, max(max_length or 0, 4096))
    lines = ["# Best effort: llama.cpp runs the chat template inside the GGUF exactly, Ollama runs the one below."]
    template = None
    if markup.header == f"{OPEN}assistant\n" and markup.end == CLOSE:
        template = go_template(tokenizer, markup, data)
        lines += _differences(data, markup)
    else:
        lines += ["# No TEMPLATE: this chat template is not of the ChatML family; Ollama looks for one like it."]
    lines += [f"FROM ./{gguf.name}"]
    if template is not None:
        lines += [f'TEMPLATE """{template}"""']
    stops = [markup.end, OPEN] if template is not None else [markup.end]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [
        f"PARAMETER num_ctx {length}",
        "# as evaluated: the likeliest token; a repeat penalty would punish copying names into arguments",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def go_template(tokenizer: Any, markup: Markup, data: DataRecord | None) -> str:
    """The chat template of a ChatML model, with tools where training had them, for Go's text/template."""
    style = _style(tokenizer, markup, data)
    default = _default_system(tokenizer)
    system = "{{ .System }}"
    if style is not None:
        gap = "{{ if and .System .Tools }}\n\n{{ end }}"
        system = f"{{{{ if .System }}}}{{{{ .System }}}}{{{{ end }}}}{gap}{{{{ if .Tools }}}}{style.tools}{{{{ end }}}}"
        opened = "{{ if or .System .Tools }}"
    else:
        opened = "{{ if .System }}"
    text = f"{opened}{OPEN}system\n{system}{CLOSE}\n"
    text += f"{{{{ else }}}}{OPEN}system\n{default}{CLOSE}\n{{{{ end }}}}" if default else "{{ end }}"
    text += '{{ $previous := "" }}{{ range .Messages }}'
    if style is not None:
        text += f'{{{{ if and (eq $previous "tool") (ne .Role "tool") }}}}{CLOSE}\n{{{{ end }}}}'
    text += f'{{{{ if eq .Role "user" }}}}{OPEN}user\n{{{{ .Content }}}}{CLOSE}\n'
    text += f'{{{{ else if eq .Role "assistant" }}}}{OPEN}assistant\n{{{{ .Content }}}}'
    if style is not None:
        # a call follows text, and another call, on a line of its own
        text += "{{ $said := .Content }}{{ range $i, $call := .ToolCalls }}{{ if or $said $i }}\n{{ end }}"
        text += f"{{{{ with $call }}}}{style.call}{{{{ end }}}}{{{{ end }}}}"
    text += f"{CLOSE}\n"
    if style is not None:
        before, after = style.result
        text += '{{ else if eq .Role "tool" }}{{ if ne $previous "tool" }}'
        text += f"{OPEN}{style.result_role}\n{{{{ else }}}}"
        text += "\n" if style.result_role == "user" else f"{CLOSE}\n{OPEN}{style.result_role}\n"
        text += f"{{{{ end }}}}{before}{{{{ .Content }}}}{after}"
    text += "{{ end }}{{ $previous = .Role }}{{ end }}"
    if style is not None:
        text += f'{{{{ if eq $previous "tool" }}}}{CLOSE}\n{{{{ end }}}}'
    thought = _EMPTY_THOUGHT if data is not None and data.thinking == "split" and _thinks(tokenizer) else ""
    return f"{text}{OPEN}assistant\n{thought}"


def _style(tokenizer: Any, markup: Markup, data: DataRecord | None) -> _Style | None:
    if data is None or data.call_format == "native":
        return _HERMES if markup.tools else None
    # the words of training, the schemas in the place of a marker
    marker = {"type": "function", "function": {"name": "MARKER", "description": "", "parameters": {}}}
    schemas = templated(tokenizer, compose(tokenizer, Rendering(data.call_format, "schema")))
    words = render(schemas, [{"role": "user", "content": "quartz"}], tools=[marker])
    words = words[words.index(f"{OPEN}system\n") + len(f"{OPEN}system\n") : words.index(CLOSE)]
    line = next(line for line in words.splitlines() if "MARKER" in line)
    tools = words.replace(f"\n{line}", "{{ range .Tools }}\n{{ .Function }}{{ end }}")
    marks = ("", "") if _keeps_results(schemas) else ("<tool_response>\n", "\n</tool_response>")
    return _Style(tools, _CALLS[data.call_format], marks, "user" if marks[0] else "tool")


def _keeps_results(tokenizer: Any) -> bool:
    """Whether results stay tool turns."""
    messages = [{"role": "user", "content": "quartz"}, {"role": "tool", "content": "granite"}]
    return "<tool_response>" not in render(tokenizer, messages)


def _differences(data: DataRecord | None, markup: Markup) -> list[str]:
    lines = ["# Differs from training: Go writes JSON without spaces and sorts the keys of arguments."]
    if data is not None and data.call_format != "native" and data.tool_prompt == "signature":
        lines += ["# Differs from training: tools are shown as JSON schemas here, as one-line signatures there."]
    if data is not None and data.call_format == "jsonrpc":
        lines += ["# Differs from training: several calls of one turn all have id 1 here, one a line."]
    if data is not None and data.call_format == "native" and not markup.tools:
        lines += ["# Without tools: the model's chat template knows none."]
    return lines


def _default_system(tokenizer: Any) -> str:
    """What the chat template puts into the system turn of a chat that has none."""
    try:
        text = render(tokenizer, [{"role": "user", "content": "quartz"}])
    except DataError:
        return ""
    start = f"{OPEN}system\n"
    return text[len(start) : text.index(CLOSE)] if text.startswith(start) else ""


def _thinks(tokenizer: Any) -> bool:
    messages = [{"role": "user", "content": "quartz"}]
    try:
        text = render(tokenizer, messages, add_generation_prompt=True, enable_thinking=False)
    except DataError:
        return False
    return text.endswith(_EMPTY_THOUGHT)
