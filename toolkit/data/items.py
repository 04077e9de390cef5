"""Calls and the pieces of a turn, as messages write them: OpenAI's calls, Anthropic's blocks, and their other names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from toolkit.data.jsontext import dumps, loads
from toolkit.data.notes import Fields, Remarks, RowError, no_name, report_unused, shown
from toolkit.data.spoken_turns import Call

ARGUMENTS = ("arguments", "parameters", "args", "input", "params")
_NAMES = ("name", "tool", "tool_name")
_TEXT_PARTS = ("text", "input_text", "output_text")
_READ_PARTS = "text, thinking, tool_use and tool_result"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a turn, in its order: text, a thought, a call, or a result (with the id of the call it answers)."""

    kind: Literal["text", "thought", "call", "result"]
    text: str = ""
    call: Call | None = None
    answers: str = ""


def read_calls(value: Any, what: str, remarks: Remarks) -> tuple[Call, ...]:
    """Calls from a list, one object, or JSON text of either; arguments may be JSON text too. Raises `RowError`."""
    return tuple(read_call(item, what, remarks) for item in as_list(value, what))


def read_call(item: Any, what: str, remarks: Remarks) -> Call:
    """One call. Raises `RowError`."""
    if isinstance(item, str):
        item = loads(item, f"{what}: call")
    if not isinstance(item, dict):
        raise RowError(f"{what}: a call is no object: {shown(item)}", cause="a call that is no object")
    outer = Fields(item, f"{what}: call")
    outer.known("type", "index")
    written = outer.take("id", "tool_call_id", "call_id")
    function = outer.take("function")
    inner = Fields(function, outer.what) if isinstance(function, dict) else outer
    name = function if isinstance(function, str) else inner.take(*_NAMES)
    if name is not None and (not isinstance(name, str) or not name):
        raise RowError(f"{what}: a call's name: {no_name(name)}", cause="a call without a name")
    if name is None:
        raise RowError(f"{what}: a call needs a name: found {outer.found()}", cause="a call without a name")
    arguments = inner.take(*ARGUMENTS)
    if arguments is None and inner is not outer:
        arguments = outer.take(*ARGUMENTS)
    if arguments is None:
        for key, _ in (*inner.unused(), *outer.unused()):
            raise RowError(
                f"{what}: a call of {shown(name)} has no arguments, but {shown(key)}, which is not read; "
                f"wanted one of {', '.join(ARGUMENTS)}",
                cause="a call whose arguments have an unknown name",
            )
    report_unused(outer, "calls", remarks)
    if inner is not outer:
        report_unused(inner, "calls", remarks)
    return Call(name, arguments_of(arguments, name, what), "" if written is None else str(written))


def arguments_of(value: Any, name: str, what: str) -> dict[str, Any]:
    """A call's arguments, out of an object or JSON text of one. Raises `RowError`."""
    place = f"{what}: arguments of {shown(name)}"
    if isinstance(value, str):
        value = loads(value, place) if value.strip() else {}
        if isinstance(value, str):
            raise RowError(f"{place}: JSON text within JSON text, wanted it once", cause="arguments encoded twice")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(
            f"{place}: wanted a JSON object, got {shown(value)}",
            cause="arguments that are no object",
        )
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """A list, one object as a list, or JSON text of either. Raises `RowError`."""
    if isinstance(value, str):
        value = loads(value, what) if value.strip() else []
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    raise RowError(f"{what}: wanted a list, got {type(value).__name__}", cause="something that is no list")


def read_pieces(value: Any, what: str, remarks: Remarks) -> list[Piece]:
    """A turn's content: text, or a list of parts by type. Raises `RowError` for parts that are not text or calls."""
    if isinstance(value, str):
        return [Piece("text", value)]
    if isinstance(value, dict) and "type" in value:
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(part, dict) for part in value):
        raise RowError(f"{what}: wanted text, got {_kind(value)}", cause="a turn whose content is no text")
    return [_piece(part, what, remarks) for part in value]


def _piece(part: dict[str, Any], what: str, remarks: Remarks) -> Piece:
    fields = Fields(part, what)
    kind = fields.take("type")
    if kind in _TEXT_PARTS or (kind is None and fields.has("text")):
        found = Piece("text", _text(fields.take("text"), what))
    elif kind == "thinking":
        fields.known("signature")
        found = Piece("thought", _text(fields.take("thinking", "text"), what))
    elif kind == "tool_use":
        return Piece("call", call=read_call(part, what, remarks))
    elif kind == "tool_result":
        answers = fields.take("tool_use_id", "tool_call_id")
        found = Piece(
            "result",
            result_text(fields.take("content"), what, remarks),
            answers="" if answers is None else str(answers),
        )
    elif kind == "refusal":
        found = Piece("text", _text(fields.take("refusal"), what))
    else:
        named = f"of type {shown(kind)}" if kind is not None else f"without a type (found {fields.found()})"
        raise RowError(
            f"{what}: wanted text, got a part {named}; what is read is {_READ_PARTS}",
            cause="a turn with a part that is neither text nor a call",
        )
    report_unused(fields, f"{kind or 'text'} parts of turns", remarks)
    return found


def result_text(value: Any, what: str, remarks: Remarks) -> str:
    """What a tool said: text as it is, parts of type text joined, any other JSON value as JSON."""
    if value is None:
        remarks["a tool's result without content is read as empty"] += 1
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    if parts and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        types = {part["type"] for part in parts}
        if types <= set(_TEXT_PARTS) and all("text" in part for part in parts):
            return "".join(_text(part["text"], what) for part in parts)
        if types & {"image", "image_url", "input_image", "audio"}:
            raise RowError(f"{what}: a tool's result that is no text: {', '.join(sorted(types))}")
    return dumps(value, what)


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"{what}: wanted text, got {_kind(value)}", cause="a turn whose content is no text")
    return value


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", type(None): "nothing"}.get(type(value)) or shown(value, 40)
