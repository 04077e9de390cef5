"""What calls a JSON value holds, by the usual keys, and what a call format says of how each is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from toolkit.chats import ToolCall
from toolkit.data.lenient_json import STRICT

_NAME_KEYS = ("name", "tool", "function", "tool_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "params", "input")
_WRAPPERS = ("tool_calls", "calls")


@dataclass(frozen=True, slots=True)
class Found:
    """What an object was taken for; neither call nor problem when it is just data."""

    call: ToolCall | None = None
    problem: str = ""
    valid: bool = True


NO_CALL = Found()


def items_of(value: Any) -> tuple[list[Any], bool]:
    """The objects in a JSON value that may be calls, and whether another object was around them."""
    if isinstance(value, list):
        return value, False
    if not any(key in value for key in (*_NAME_KEYS, "method")):
        for key in _WRAPPERS:
            if isinstance(value.get(key), list):
                return value[key], True
    return [value], False


def call_of(item: Any, *, marked: bool) -> Found:
    """The call that `item` is; `marked` where it stands between marks that say it is one."""
    if not isinstance(item, dict):
        return NO_CALL
    if isinstance(item.get("method"), str):
        return _request(item)
    if isinstance(item.get("function"), dict):
        return call_of(item["function"], marked=marked)
    name = next((item[key] for key in _NAME_KEYS if isinstance(item.get(key), str)), None)
    key = next((key for key in _ARGUMENT_KEYS if key in item), None)
    meant = marked or "tool" in item or key == "arguments"
    if not name or ("description" in item and not meant):  # a tool's schema has a description, a call has none
        return NO_CALL
    if key is None:
        # {"name": "Ada"} in an answer is data; only a mark or the key `tool` says that it is meant as a call.
        return Found(ToolCall(name, {}), "a call without arguments") if meant else NO_CALL
    return _with_arguments(name, item[key]) if meant or isinstance(item[key], dict) else NO_CALL


def _request(item: dict[str, Any]) -> Found:
    params = item.get("params", {})
    if item["method"] != "tools/call":
        if "jsonrpc" not in item or not item["method"]:
            return NO_CALL
        found = _with_arguments(item["method"], params)
        return replace(found, problem=found.problem or "the tool's name stands as the method, not tools/call")
    name = None
    if isinstance(params, dict):
        name = next((params[key] for key in _NAME_KEYS if isinstance(params.get(key), str)), None)
    if not name:
        return Found(problem='tools/call without a "name" in "params"')
    key = next((key for key in _ARGUMENT_KEYS if key in params), None)
    return Found(ToolCall(name, {})) if key is None else _with_arguments(name, params[key])


def _with_arguments(name: str, arguments: Any) -> Found:
    if isinstance(arguments, dict):
        return Found(ToolCall(name, arguments))
    if arguments is None:
        return Found(ToolCall(name, {}), "arguments are null")
    if isinstance(arguments, str):
        try:
            inner = STRICT.decode(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            return Found(problem="arguments are a string that is not JSON", valid=False)
        if isinstance(inner, dict):
            return Found(ToolCall(name, inner), "arguments as a JSON string")
    return Found(problem="arguments are not an object")


def hermes_problem(item: dict[str, Any], marked: bool) -> str:
    if not marked:
        return "a call without <tool_call> marks"
    return "" if "name" in item and "arguments" in item else 'keys other than "name" and "arguments"'


def llama_problem(item: dict[str, Any], marked: bool) -> str:
    if marked:
        return "<tool_call> marks around a call"
    return "" if "name" in item and "parameters" in item else 'keys other than "name" and "parameters"'


def json_problem(item: dict[str, Any], marked: bool) -> str:
    if marked:
        return "<tool_call> marks around a call"
    return "" if "tool" in item and "arguments" in item else 'keys other than "tool" and "arguments"'


def jsonrpc_problem(item: dict[str, Any], marked: bool) -> str:
    if marked:
        return "<tool_call> marks around a call"
    params = item.get("params")
    request = item.get("jsonrpc") == "2.0" and item.get("method") == "tools/call" and "id" in item
    if not request:
        return 'no JSON-RPC request ("jsonrpc": "2.0", "id", "method": "tools/call")'
    return "" if isinstance(params, dict) and "name" in params else 'no "name" in "params"'
