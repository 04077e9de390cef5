"""What is wrong with a request that has not the shape of OpenAI's, in words of ours instead of pydantic's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from toolkit.inference.serve.bounds import Refused

_PART = '{"type": "text", "text": "..."}'
_NAMED = '{"type": "function", "function": {"name": NAME}}'
# Where several kinds of value will do, or none will: by the place without numbers, for all that is below it too.
_WANTED = {
    "messages.content.type": f"text only, as {_PART}: images, sound and files are not read",
    "messages.content": f"a text, or a list of parts, each {_PART}",
    "messages.images": "none: text only, images are not read",
    "messages.tool_calls.function.arguments": "the JSON text of an object",
    "tool_choice": f'"none", "auto", "required" or {_NAMED}',
    "response_format": '{"type": "text"}',
    "stop": "a text, or a list of at most 8, each of at most 500 characters",
    "prompt": "one text",
}
_KINDS = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge} at least",
    "less_than_equal": "{le} at most",
    "less_than": "less than {lt}",
    "too_short": "{min_length} at least",
    "too_long": "at most {max_length} of them",
    "string_too_long": "at most {max_length} characters",
}
_SHOWN = 40  # characters of what came instead


def refusal(error: ValidationError) -> Refused:
    """The refusal of a body: where it is wrong, what is wanted there, and what came."""
    # of a value that fits none of several kinds, the complaint that got deepest
    first = max(error.errors(include_url=False), key=lambda one: len(_place(_named(one["loc"]))))
    parts = _named(first["loc"])
    above = [".".join(part for part in parts[:size] if isinstance(part, str)) for size in range(len(parts) + 1)]
    # what is wanted is told of the place that it is for, and what is wrong below it by its name there
    size = next((size for size in range(len(parts), 0, -1) if above[size] in _WANTED), len(parts))
    wanted = _WANTED.get(above[size])
    place, below = _place(parts[:size]), _place(parts[size:])
    if first["type"] == "missing":
        told = f"wanted {wanted}; {below} is missing" if below else f"missing; wanted {wanted}" if wanted else "missing"
    else:
        bounds = {name: _bound(value) for name, value in first.get("ctx", {}).items()}
        kind = _KINDS[first["type"]].format(**bounds) if first["type"] in _KINDS else first["msg"]
        told = f"wanted {wanted or kind}, got {_shown(first['input'])}" + (f" as {below}" if below else "")
    return Refused(400, f"{place}: {told}", param=str(first["loc"][0]))


def _named(parts: Sequence[int | str]) -> list[int | str]:
    """A place without the names of our own kinds that pydantic puts between."""
    return [
        part
        for part in parts
        if isinstance(part, int) or (part.isidentifier() and not part.startswith("_") and part not in ("str", "bool"))
    ]


def _place(parts: Sequence[int | str]) -> str:
    place = ""
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


def _bound(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _shown(value: Any) -> str:
    """A value where it is short, else what kind it is."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
