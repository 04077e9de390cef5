"""What a built-in tool and a chain of tools are, and the register in which all of them stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.world.world import World

Runner = Callable[..., Any]
Sampler = Callable[[Random, "World"], dict[str, Any]]
Builder = Callable[[Random, "World"], Any]


class ToolFailure(Exception):
    """A tool can't do what was asked; the message becomes `{"error": message}`."""


class Unsuitable(Exception):
    """This world holds nothing that the request needs; the generator draws another one."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter's JSON schema, and whether a call must have it."""

    schema: dict[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as a model sees it (`schema`) and as the simulated world runs it (`run(world, **arguments)`).

    `sample` draws slot values for a request that works in a given world, `bad` for one that ends in an error.
    `near` names the tools of the same domain that could also serve a request for this one; None means all of them.
    `either_way` names two arguments that mean the same when they are exchanged, as the ends of a distance.
    `held_out` tools are those of the development set's split "tools"; `test` tools are in the test set alone.
    """

    name: str
    domain: str
    description: str
    parameters: dict[str, Any]
    run: Runner
    sample: Sampler
    bad: Sampler | None = None
    held_out: bool = False
    test: bool = False
    near: frozenset[str] | None = None
    either_way: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether training chats have it."""
        return not (self.held_out or self.test)

    @property
    def schema(self) -> dict[str, Any]:
        """The OpenAI function schema. Chats share the parameter object: do not change it."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.parameters["required"])


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls that build on each other. `run(do, slots)` makes them with `do(name, **arguments)`."""

    name: str
    domain: str
    tools: tuple[str, ...]
    run: Callable[..., dict[str, Any]]
    sample: Sampler


TOOLS: dict[str, Tool] = {}
CHAINS: dict[str, Chain] = {}
PARTS: dict[str, Builder] = {}


def string(description: str, enum: tuple[str, ...] = ()) -> Param:
    schema: dict[str, Any] = {"type": "string", "description": description}
    if enum:
        schema["enum"] = list(enum)
    return Param(schema)


def integer(description: str, minimum: int | None = None, maximum: int | None = None) -> Param:
    schema: dict[str, Any] = {"type": "integer", "description": description}
    if minimum is not None:
        schema["minimum"] = minimum
    if maximum is not None:
        schema["maximum"] = maximum
    return Param(schema)


def number(description: str, minimum: float | None = None) -> Param:
    schema: dict[str, Any] = {"type": "number", "description": description}
    if minimum is not None:
        schema["minimum"] = minimum
    return Param(schema)


def boolean(description: str) -> Param:
    return Param({"type": "boolean", "description": description})


def array(description: str, items: str = "string") -> Param:
    return Param({"type": "array", "items": {"type": items}, "description": description})


def optional(param: Param) -> Param:
    return replace(param, required=False)


def tool(
    domain: str,
    description: str,
    *,
    sample: Sampler,
    bad: Sampler | None = None,
    held_out: bool = False,
    test: bool = False,
    near: tuple[str, ...] | None = None,
    either_way: tuple[str, ...] = (),
    params: Mapping[str, Param] | None = None,
) -> Callable[[Runner], Runner]:
    """Register a function `(world, **arguments) -> JSON value` as the tool of the same name."""

    def register(run: Runner) -> Runner:
        items = dict(params or {})
        TOOLS[run.__name__] = Tool(
            name=run.__name__,
            domain=domain,
            description=description,
            parameters={
                "type": "object",
                "properties": {key: param.schema for key, param in items.items()},
                "required": [key for key, param in items.items() if param.required],
            },
            run=run,
            sample=sample,
            bad=bad,
            held_out=held_out,
            test=test,
            near=None if near is None else frozenset(near),
            either_way=either_way,
        )
        return run

    return register


def chain(domain: str, *tools: str, sample: Sampler) -> Callable[[Runner], Runner]:
    """Register a function `(do, slots) -> answer fields` as a chain over `tools`, all of which must be on offer."""

    def register(run: Runner) -> Runner:
        CHAINS[run.__name__] = Chain(run.__name__, domain, tools, run, sample)
        return run

    return register


def part(name: str) -> Callable[[Builder], Builder]:
    """Register the function that makes one domain's state, as plain JSON values."""

    def register(build: Builder) -> Builder:
        PARTS[name] = build
        return build

    return register


def only(rows: list[Any]) -> Any:
    """The one row; Unsuitable where there are none or several."""
    if len(rows) != 1:
        raise Unsuitable("not exactly one")
    return rows[0]


def as_date(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ToolFailure(f"not a date in the form YYYY-MM-DD: {value}") from None


def as_minutes(value: str) -> int:
    """Minutes since midnight of a time in the form HH:MM."""
    hours, _, minutes = value.partition(":")
    if len(hours) == len(minutes) == 2 and (hours + minutes).isdecimal() and int(hours) < 24 and int(minutes) < 60:
        return int(hours) * 60 + int(minutes)
    raise ToolFailure(f"not a time in the form HH:MM: {value}")


def clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


_CHECKS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


def _value_problem(name: str, schema: dict[str, Any], value: Any) -> str | None:
    kind: str = schema["type"]
    if not isinstance(value, _CHECKS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"argument {name} must be of type {kind}"
    if value != value or value in (float("inf"), float("-inf")):
        return f"argument {name} must be a finite number"
    if "enum" in schema and value not in schema["enum"]:
        return f"argument {name} must be one of: {', '.join(schema['enum'])}"
    if "minimum" in schema and value < schema["minimum"]:
        return f"argument {name} must be at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"argument {name} must be at most {schema['maximum']}"
    if isinstance(value, list):
        for item in value:
            if problem := _value_problem(name, schema["items"], item):
                return problem
    return None


def argument_problem(spec: Tool, arguments: Any) -> str | None:
    """What is wrong with a call's arguments by the tool's schema, or None."""
    return schema_problem(spec.parameters, arguments)


def schema_problem(parameters: Mapping[str, Any], arguments: Any) -> str | None:
    """The same for the parameters of any schema."""
    if not isinstance(arguments, dict):
        return "arguments must be an object"
    properties = parameters["properties"]
    for name in parameters["required"]:
        if name not in arguments:
            return f"missing argument: {name}"
    for name, value in arguments.items():
        if name not in properties:
            return f"unknown argument: {name}"
        if problem := _value_problem(name, properties[name], value):
            return problem
    return None
