"""A call format's preamble, put before a model's own chat template."""

from __future__ import annotations

from importlib import resources
from typing import Any

from toolkit.data.markup import probe
from toolkit.data.template import END, NO_THINKING, Rendering, model_part, own_template, rendering_of, templated
from toolkit.errors import DataError


def compose(tokenizer: Any, rendering: Rendering, *, as_before: bool = False) -> str:
    """The chat template that renders as `rendering` says, in the markup of the tokenizer's own.

    `as_before` gives what `toolkit.data.legacy` writes, as far as a template can: its signatures leave out a few more
    descriptions. Raises `DataError` when there is no template, when it can't be understood, or when the two don't go
    together.
    """
    own, _ = own_template(tokenizer, rendering.call_format)
    if rendering.call_format == "native":
        if rendering.thinking == "template":
            return own
        said = rendering_of(own)
        if said.call_format == "native":
            return _joined(rendering, [NO_THINKING], model_part(own))
        rendering = Rendering(said.call_format, said.tool_prompt, rendering.thinking)
    own = model_part(own)
    known = probe(templated(tokenizer, own))
    role = {"hermes": "user", "json": "each", "jsonrpc": "tool"}[rendering.call_format] if known.tool_role else "user"
    parts = [f"{{%- set toolkit_role = '{role}' %}}"]
    if rendering.thinking == "split":
        parts.append(NO_THINKING)
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


def _joined(rendering: Rendering, parts: list[str], own: str) -> str:
    # An engine drops the line break after a block: one must stand there where the model's part begins with blank space.
    gap = "\n" if own[:1].isspace() else ""
    return "\n".join(part.strip() for part in [f"{{#- toolkit: {rendering} -#}}", *parts, END]) + gap + own


def _part(name: str) -> str:
    return resources.files("toolkit.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
