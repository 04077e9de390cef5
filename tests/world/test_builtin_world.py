"""The simulated world answers every call with JSON, alike for one seed, whatever the call looks like."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.world import TOOLS, World
from toolkit.world.language import answer, phrases
from toolkit.world.spec import PARTS, argument_problem

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.lists(st.integers(), max_size=3)
)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly values of the schema's type, sometimes anything at all."""
    if "enum" in schema:
        good: st.SearchStrategy[Any] = st.sampled_from(schema["enum"])
    elif schema["type"] == "array":
        good = st.lists(values(schema["items"]), max_size=4)
    else:
        good = {
            "string": st.one_of(
                st.text(max_size=20),
                st.sampled_from(("2026-01-01", "10:30", "https://x.example/a/1", "Oslo", "1/0", "2**9**9")),
            ),
            "integer": st.integers(-5, 400),
            "number": st.floats(allow_nan=False, allow_infinity=False),
            "boolean": st.booleans(),
        }[schema["type"]]
    return st.one_of(good, good, good, ANYTHING)


@st.composite
def calls(draw: Any) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(TOOLS)))
    parameters = TOOLS[name].parameters
    chosen = [key for key in parameters["properties"] if key in parameters["required"] or draw(st.booleans())]
    if draw(st.integers(0, 9)) == 0:
        chosen = chosen[1:]
    arguments = {key: draw(values(parameters["properties"][key])) for key in chosen}
    if draw(st.integers(0, 9)) == 0:
        arguments["extra"] = draw(ANYTHING)
    return name, arguments


@settings(max_examples=500)
@given(call=calls())
def test_any_call_gets_json_and_the_same_verdict_as_the_schema(call: tuple[str, dict[str, Any]]) -> None:
    name, arguments = call
    world = World(7)
    before = json.dumps(arguments, sort_keys=True, default=str)
    result = json.loads(world.call(name, arguments))
    assert json.dumps(arguments, sort_keys=True, default=str) == before, "a call must not change its arguments"
    schema = {**TOOLS[name].parameters, "additionalProperties": False}
    finite = not any(isinstance(v, float) and (v != v or abs(v) == float("inf")) for v in arguments.values())
    whole = any(isinstance(v, float) and v.is_integer() for v in arguments.values() if finite)
    if finite and not whole:  # JSON Schema takes 3.0 for an integer, the world wants 3
        valid = jsonschema.Draft202012Validator(schema).is_valid(arguments)
        assert valid == (argument_problem(TOOLS[name], arguments) is None)
    if argument_problem(TOOLS[name], arguments):
        assert set(result) == {"error"}
    json.dumps(world.state(), allow_nan=False)


def test_bad_calls_say_what_is_wrong() -> None:
    world = World(1)
    untouched = world.state()
    wrong: tuple[tuple[str, Any, str], ...] = (
        ("fly_to_moon", {}, "unknown tool: fly_to_moon"),
        ("current_weather", {}, "missing argument: city"),
        ("current_weather", {"city": "Oslo", "town": "x"}, "unknown argument: town"),
        ("current_weather", {"city": 3}, "argument city must be of type string"),
        ("current_weather", {"city": "Oslo", "units": "kelvin"}, "argument units must be one of: celsius, fahrenheit"),
        ("weather_forecast", {"city": "Oslo", "days": 9}, "argument days must be at most 7"),
        ("weather_forecast", {"city": "Oslo", "days": True}, "argument days must be of type integer"),
        ("sum_numbers", {"numbers": [1, "2"]}, "argument numbers must be of type number"),
        ("sum_numbers", ["numbers"], "arguments must be an object"),
        ("delete_file", {"path": "/etc/passwd"}, "no such file: /etc/passwd"),
        ("calculate", {"expression": "9**9**9**9"}, "exponent too large"),
        ("calculate", {"expression": "__import__('os')"}, "only numbers and + - * / % ** ( ) are allowed"),
        ("shell_exec", {"command": "rm -rf /"}, "command not allowed here: rm"),
    )
    for name, arguments, message in wrong:
        assert json.loads(world.call(name, arguments)) == {"error": message}
    assert world.state() == untouched


@pytest.mark.parametrize("raised", [OverflowError("too large"), ZeroDivisionError("by zero"), ValueError("no date")])
def test_values_that_a_tool_can_not_compute_are_an_error_of_the_call(
    monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(world: World) -> None:
        raise raised

    name, tool = next((name, tool) for name, tool in TOOLS.items() if not tool.required)
    monkeypatch.setitem(TOOLS, name, replace(tool, run=fail))
    assert json.loads(World(0).call(name, {})) == {"error": f"{name} can't work with these values: {raised}"}


def test_a_seed_makes_a_world() -> None:
    assert World(5).state() == World(5).state()
    assert World(5).state() != World(6).state()
    state = World(5).state()
    assert set(state) == set(PARTS)
    assert json.loads(json.dumps(state)) == state


def test_what_a_domain_starts_with_does_not_hang_on_the_order_of_calls() -> None:
    one, other = World(3), World(3)
    for name in sorted(PARTS):
        one[name]
    for name in sorted(PARTS, reverse=True):
        other[name]
    assert one.state() == other.state()


def test_state_is_a_copy() -> None:
    world = World(2)
    world.state()["mail"]["inbox"].clear()
    assert world.state()["mail"]["inbox"]


@pytest.mark.parametrize("seed", range(8))
def test_changes_are_seen_in_the_state(seed: int) -> None:
    world = World(seed)
    path = next(iter(world.state()["files"]["files"]))
    before = world.state()
    world.call("read_file", {"path": path})
    assert world.state() == before, "reading changes nothing"
    world.call("delete_file", {"path": path})
    after = world.state()
    assert path not in after["files"]["files"]
    assert {name for name in after if after[name] != before[name]} == {"files"}


def test_an_answer_says_in_words_that_there_is_nothing() -> None:
    world = World(3)
    world.call("add_todo", {"text": "wax the skis"})
    found = json.loads(world.call("find_todo", {"text": "skis"}))
    assert found["todos"][0]["due"] is None
    assert answer(Random(0), phrases()["find_todo"], {"text": "skis"}, found).endswith("due none).")


def test_random_of_a_world_is_named() -> None:
    world = World(4)
    assert world.random("a").random() == World(4).random("a").random()
    assert world.random("a").random() != world.random("b").random()
    assert isinstance(world.random("a"), Random)
