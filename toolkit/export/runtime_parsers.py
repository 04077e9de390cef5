"""Who reads the calls that a model writes, by how its chat template writes them."""

from __future__ import annotations

from typing import Any

from toolkit.data.markup import probe
from toolkit.errors import DataError
from toolkit.export.template_parts import Calls, read_calls

_HERMES = "<tool_call>"
_PARTLY, _NOT = "one a turn", "not read"


def read_by(tokenizer: Any) -> dict[str, str]:
    """What becomes of calls in each runtime; `tokenizer` has the chat template of the files.

    llama.cpp learns a format from the template itself; what its server of 2026-10 (xllamacpp 2026.10.11549) makes of
    ours is tested. Ollama's rules are in tests/export/ollama_rules.py.
    """
    markup = probe(tokenizer)
    if not markup.tools:
        return dict.fromkeys(("toolkit serve", "llama.cpp", "Ollama", "vLLM"), "none: the chat template knows no tools")
    try:
        calls = read_calls(tokenizer, markup)
    except DataError:
        own = "read, where it knows the base model's way to call"
        return {"toolkit serve": "read" if markup.form else own, "llama.cpp": own, "Ollama": own, "vLLM": own}
    return {
        "toolkit serve": "read",
        "llama.cpp": _llama_cpp(calls),
        "Ollama": _ollama(calls),
        "vLLM": _vllm(calls),
    }


def gaps_of(told: dict[str, str]) -> str:
    """One line where not all runtimes read all calls, with what to do; else empty."""
    gaps = [f"{runtime}: {what}" for runtime, what in told.items() if _PARTLY in what or _NOT in what]
    if not gaps:
        return ""
    return f'calls of this format are not read everywhere (data.call_format = "hermes" is): {"; ".join(gaps)}'


def _llama_cpp(calls: Calls) -> str:
    if calls.nested:
        return f"{_NOT}, its server answers with an error"
    if calls.before.startswith("{"):
        return f"read, {_PARTLY}; several end in an error"
    return "read"


def _ollama(calls: Calls) -> str:
    if calls.nested and calls.named:
        return f"read, {_PARTLY}; several come as text"
    if not calls.named:
        return f"read from 0.30 on, {_PARTLY}; earlier versions give them as text"
    return "read"


def _vllm(calls: Calls) -> str:
    if calls.named and calls.before.startswith(_HERMES):
        return "read, with --enable-auto-tool-choice --tool-call-parser hermes"
    if calls.named and not calls.nested:
        return "read, with the parser for the base model"
    return f"{_NOT}, it has no parser for them"
