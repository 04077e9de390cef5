"""A command line that can't be read, told in one line: what was found and wanted, the nearest name, where to look.

Typer takes four lines for that, in its own words. Its errors are asked for what they hold; of one that is new here its
own words are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from toolkit.commands.hints import hint
from toolkit.errors import meant, nearest
from toolkit.terminal import one_line
from toolkit.words import typed

_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "path": "a path"}  # pydantic's names
_OTHERS = {"limit": "chats", "num-samples": "chats", "max-samples": "chats"}  # lm-eval's and others' names
_BOUNDS = {"ge": "{} at least", "gt": "more than {}", "le": "{} at most", "lt": "less than {}"}


def is_usage(error: BaseException) -> TypeGuard[Any]:
    """Whether this is what Typer says of a command line, whose classes have no public names."""
    return hasattr(error, "show") and hasattr(error, "exit_code") and hasattr(error, "format_message")


def is_help(error: Any) -> bool:
    """Whether its words are the help of a command that does nothing without arguments."""
    context = getattr(error, "ctx", None)
    return context is not None and error.format_message() == context.get_help()


def told(error: Any, words: Sequence[str], root: Any) -> str:
    """The line for a command line of `words` that was refused. `root`: the command with all verbs."""
    command, path = _command(error, words, root)
    where = f"see {typed(*path, '--help')}"
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    way = hint(words, option, getattr(param, "name", None))
    fault = one_line(_fault(error, command, option, param, near=not way))
    if way:
        fault = f"{fault}; {way}"
    return f"{fault} {where.capitalize()}" if fault.endswith("?") else f"{fault}; {where}"


def no_command(name: str, near: str) -> str:
    """What is said of a verb that there is not; `near`: one that there is, or nothing."""
    return f"{name}: no such command{meant(near)}"


def _fault(error: Any, command: Any, option: str | None, param: Any, *, near: bool) -> str:
    said = error.format_message().rstrip(".")
    if hasattr(error, "possibilities"):
        return f"{option}: unknown option{meant(_near_option(str(option), command) if near else '')}"
    if option is not None:
        if "does not take" in said:
            return f"{option}: takes no value"
        return f"{option}: no value given, wanted {_placeholder(option, command)}"
    if param is not None and hasattr(error, "param_type"):
        return f"{_name(param)} is missing"
    if param is not None:
        return f"{_name(param)}{_wanted(error)}"
    if extra := _EXTRA.fullmatch(said):
        return f"{extra[1]}: more arguments than `{command.name}` takes"
    return said


def _wanted(error: Any) -> str:
    """` -1: wanted 0 at least` of a value that pydantic refused; in the words of Typer else."""
    try:
        first = error.__cause__.errors()[0]
    except (AttributeError, IndexError):
        return f": {error.message.rstrip('.')}"
    kind = _KINDS.get(first["type"].partition("_")[0])
    bounds = [text.format(f"{first['ctx'][key]:,.10g}") for key, text in _BOUNDS.items() if key in first.get("ctx", {})]
    wanted = " and ".join(bounds) or kind or first["msg"].removeprefix("Input should be ")
    return f" {first['input']}: wanted {wanted}"


def _command(error: Any, words: Sequence[str], root: Any) -> tuple[Any, list[str]]:
    """The command at fault, and the verbs that lead to it; by `words` where the error does not know."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return context.command, context.command_path.split()[1:]
    command, path = root, []
    for word in words:
        if (inner := getattr(command, "commands", {}).get(word)) is None:
            break
        command = inner
        path.append(word)
    return command, path


def _options(command: Any) -> Iterator[tuple[str, Any]]:
    for param in command.params:
        for name in (*param.opts, *param.secondary_opts):
            if name.startswith("-"):
                yield name, param


def _near_option(option: str, command: Any) -> str:
    """Compared without dashes, which all have."""
    known = {name.lstrip("-"): name for name, _ in _options(command)}
    if (other := _OTHERS.get(option.lstrip("-"), "")) in known:
        return known[other]
    return known.get(nearest(option.lstrip("-"), known), "")


def _placeholder(option: str, command: Any) -> str:
    """What its help calls an option's value."""
    param = dict(_options(command)).get(option)
    return getattr(param, "metavar", None) or "one"


def _name(param: Any) -> str:
    """`--gpus`, or `RECIPE`."""
    if param.opts and param.opts[0].startswith("-"):
        return str(param.opts[0])
    return (param.metavar or param.name.upper()).rstrip(".")
