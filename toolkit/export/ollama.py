"""An Ollama Modelfile: a chat template in Go's language that writes what training's writes, and whose calls are read.

Ollama from 0.30 on prompts with the template inside the GGUF where that can do more than the Modelfile's, and lets
llama.cpp read the calls, unless the Modelfile names a RENDERER or PARSER. That is what training wrote, so none is named
here, and the Go template keeps out of the way. Earlier versions, and OLLAMA_GO_TEMPLATE=1, use the Go template, and
infer from it how calls look: by the first text in the first `if` that asks for `.ToolCalls`.

The Go template is made of what training's template writes: small chats are rendered and cut at what was put in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.data.markup import Markup, probe, render
from toolkit.errors import DataError
from toolkit.export.runtime_parsers import read_by
from toolkit.export.template_parts import Calls, Results, Tools, read_calls, read_results, read_tools

OPEN, CLOSE = "<|im_start|>", "<|im_end|>"
# What is looked for in answers where calls can't be read: no answer holds it, or ends as it begins, which Ollama would
# hold back.
_NO_MARK = "⁂"
BUILT_IN = {"lfm": "lfm2", "olmo": "olmo3", "xml": "qwen3.5", "gemma": "functiongemma"}
"""Ollama's renderer and parser, of one name, for a family's own way to write calls. They are not set: with them Ollama
leaves training's template alone and renders by what it has built in."""


def modelfile(gguf: Path, tokenizer: Any, *, max_length: int | None, context: int) -> str:
    """The text of a Modelfile for `gguf`, which lies beside it. `tokenizer` has the chat template of the file.

    `context` is the model's longest; `max_length` that of training.
    """
    markup = probe(tokenizer)
    length = min(context, max(max_length or 0, 4096))
    template, why = None, "this chat template is not of the ChatML family"
    if markup.header == f"{OPEN}assistant\n" and markup.end == CLOSE:
        try:
            template = go_template(tokenizer, markup)
        except DataError as error:  # as of calls that are no JSON
            why = str(error)
    lines = [
        "# Ollama from 0.30 on prompts with the chat template inside the GGUF, which is that of training, unless a",
        "# RENDERER or PARSER is set here, OLLAMA_GO_TEMPLATE in its environment, or the one below does as well.",
    ]
    if template is None:
        lines += [f"# No TEMPLATE for earlier versions: {why}."]
    else:
        lines += ["# The TEMPLATE is for earlier versions.", *_differences(tokenizer, markup)]
    lines += [f"# Calls are {read_by(tokenizer)['Ollama']}."]
    if template is None and (built_in := BUILT_IN.get(markup.form or "")) is not None:
        lines += [
            "# Earlier versions read them with these two lines, by a template of Ollama's own:",
            f"# RENDERER {built_in}",
            f"# PARSER {built_in}",
        ]
    lines += [f"FROM ./{gguf.name}"]
    if template is not None:
        lines += [f'TEMPLATE """{template}"""']
    stops = [*markup.closes.values(), *([OPEN] if template is not None else [])]
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [
        f"PARAMETER num_ctx {length}",
        "# as evaluated: the likeliest token; a repeat penalty would punish copying names into arguments",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def go_template(tokenizer: Any, markup: Markup) -> str:
    """The chat template of a ChatML model, with tools where it knows any, for Go's text/template."""
    user = {"role": "user", "content": "quartz"}
    asked = render(tokenizer, [user])
    tail = render(tokenizer, [user], add_generation_prompt=True).removeprefix(asked)
    default = asked.partition(f"{OPEN}user\n")[0]
    tools = read_tools(tokenizer) if markup.tools else None
    text = _system(tools, default) + '{{ $previous := "" }}{{ range .Messages }}'
    results = read_results(tokenizer, markup) if markup.tools else None
    if results is not None:
        text += f'{{{{ if and (eq $previous "tool") (ne .Role "tool") }}}}{_go(results.after)}{{{{ end }}}}'
    text += f'{{{{ if eq .Role "user" }}}}{OPEN}user\n{{{{ .Content }}}}{CLOSE}\n'
    text += f'{{{{ else if eq .Role "assistant" }}}}{OPEN}assistant\n{{{{ .Content }}}}'
    calls = read_calls(tokenizer, markup) if markup.tools else None
    if calls is not None:
        text += _calls(calls)
    text += f"{CLOSE}\n"
    if results is not None:
        text += _results(results)
    text += "{{ end }}{{ $previous = .Role }}{{ end }}"
    if results is not None:
        text += f'{{{{ if eq $previous "tool" }}}}{_go(results.after)}{{{{ end }}}}'
    text += _go(tail)
    return text if calls is None or calls.nested else _modest(text)


def _system(tools: Tools | None, default: str) -> str:
    otherwise = f"{{{{ else }}}}{_go(default)}{{{{ end }}}}" if default else "{{ end }}"
    if tools is None:
        return f"{{{{ if .System }}}}{OPEN}system\n{{{{ .System }}}}{CLOSE}\n{otherwise}"
    text = f"{{{{ if or .System .Tools }}}}{OPEN}system\n{{{{ if .Tools }}}}"
    text += (
        f"{{{{ if .System }}}}{{{{ .System }}}}{_go(tools.after_system)}{{{{ else }}}}{_go(tools.alone)}{{{{ end }}}}"
    )
    text += f"{{{{ range $i, $tool := .Tools }}}}{{{{ if $i }}}}{_go(tools.between)}{{{{ end }}}}"
    # `json`, as by itself a tool is printed as a Go struct from 0.14 on, and arguments as a map before
    text += f"{_go(tools.before)}{{{{ json .Function }}}}{_go(tools.behind)}{{{{ end }}}}{_go(tools.end)}"
    return f"{text}{{{{ else }}}}{{{{ .System }}}}{{{{ end }}}}{CLOSE}\n{otherwise}"


def _calls(calls: Calls) -> str:
    """A call's mark must be the first text of an `if` with .ToolCalls, so what comes before it stands in a `with`."""
    text = ""
    if calls.after_text:
        text += "{{ $said := .Content }}{{ with .ToolCalls }}{{ if $said }}"
        text += f"{_go(calls.after_text)}{{{{ end }}}}{{{{ end }}}}"
    if not calls.named:
        text += f"{{{{ if and false .ToolCalls }}}}{_NO_MARK}{{{{ end }}}}"
    text += f"{{{{ if .ToolCalls }}}}{_go(calls.before)}{{{{ range $i, $call := .ToolCalls }}}}"
    text += f"{{{{ if $i }}}}{_go(calls.between)}{_go(calls.before)}{{{{ end }}}}{{{{ .Function.Name }}}}"
    return f"{text}{_go(calls.middle)}{{{{ json .Function.Arguments }}}}{_go(calls.behind)}{{{{ end }}}}{{{{ end }}}}"


def _results(results: Results) -> str:
    content = "{{ json .Content }}" if results.as_json else "{{ .Content }}"
    text = '{{ else if eq .Role "tool" }}{{ if ne $previous "tool" }}'
    return f"{text}{_go(results.before)}{{{{ else }}}}{_go(results.between)}{{{{ end }}}}{content}"


def _go(text: str) -> str:
    """Text as it stands in a Go template."""
    text = text.replace("{{", '{{ "{{" }}').replace('"""', '"{{ "\\"" }}"')
    return text[:-1] + '{{ "{" }}' if text.endswith("{") else text


def _modest(template: str) -> str:
    """A Go template that Ollama does not take for one that writes results, which it tells by these words.

    It then prefers the template inside the GGUF where both know tools.
    """
    return template.replace("tool_response", 'tool_{{ "response" }}').replace('eq .Role "tool"', 'eq "tool" .Role')


def _differences(tokenizer: Any, markup: Markup) -> list[str]:
    if not markup.tools:
        return ["# Without tools: the chat template knows none."]
    lines = [
        "# It differs from training: Go writes JSON without spaces, < > & as \\u003c and so on, and sorts arguments.",
        "# In every version Ollama writes tools anew: required before properties, without the keys that it does not "
        "know.",
    ]
    if not read_tools(tokenizer).schemas:
        lines += ["# It differs from training: tools are shown as JSON schemas here, as one-line signatures there."]
    if not read_calls(tokenizer, markup).several:
        lines += ["# It differs from training: several calls of one turn, and their results, are written one by one."]
    return lines
