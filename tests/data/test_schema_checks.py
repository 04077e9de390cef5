"""Values against schemas: jsonschema's own verdicts, in bounds that no schema or value can leave."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.toys import tool, weather_chat
from toolkit import patterns
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.schema_checks import Checker, UncheckedError, checker
from toolkit.data.violations import violations

DOUBLING = {
    "$ref": "#/$defs/0",
    "$defs": {
        **{str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}, {"$ref": f"#/$defs/{n + 1}"}]} for n in range(40)},
        "40": {"type": "object"},
    },
}


def calls(schema: dict[str, Any], arguments: dict[str, Any]) -> Chat:
    one = tool("f")
    one["function"]["parameters"] = schema
    turns = (Turn("user", "u"), Turn("assistant", "", (ToolCall("f", arguments),)), Turn("tool", "1"))
    return Chat((*turns, Turn("assistant", "ok")), (one,), "other", "x.jsonl:1", "x.jsonl")


def test_a_hostile_pattern_is_searched_in_linear_time() -> None:
    held = Checker({"properties": {"a": {"pattern": "^(a+)+$"}}})
    assert held.fits({"a": "a" * 5000}) and not held.fits({"a": "a" * 5000 + "!"})


def test_a_pattern_outside_the_linear_engine_works_and_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Checker({"properties": {"a": {"pattern": "^(?!.*no)[a-z]+$"}}})
    assert held.fits({"a": "yes"}) and not held.fits({"a": "xnox"})
    monkeypatch.setattr(patterns, "SECONDS", 0.01)
    monkeypatch.setattr(patterns, "_timeouts", 0)
    hostile = Checker({"properties": {"a": {"pattern": r"^(a|aa)+\1!!$"}}})
    with pytest.raises(UncheckedError, match="takes too long to search"):
        hostile.fits({"a": "a" * 60})


def test_another_draft_or_address_inside_changes_nothing() -> None:
    draft = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://example.invalid/",
        "pattern": "(a+)+$",
    }
    held = Checker({**draft, "properties": {"a": {"$ref": "#"}, "b": draft}})
    assert not held.fits({"a": "a" * 5000 + "!"}) and not held.fits({"b": "a" * 5000 + "!"})


def test_schemas_that_double_at_each_step_end_at_the_budget() -> None:
    held = checker(DOUBLING)
    for _ in range(2):
        with pytest.raises(UncheckedError, match="takes too long to be checked"):
            held.fits({})


def test_many_alternatives_over_a_long_value_end_at_the_budget() -> None:
    held = Checker({"properties": {"a": {"anyOf": [{"type": "integer"}] * 500}}})
    with pytest.raises(UncheckedError, match="takes too long"):
        held.errors({"a": "x" * 100_000})


def test_a_deep_value_under_a_schema_that_repeats_is_no_traceback() -> None:
    value: dict[str, Any] = {}
    for _ in range(900):
        value = {"next": value}
    with pytest.raises(UncheckedError, match="nested too deep"):
        Checker({"properties": {"next": {"$ref": "#"}}}).fits(value)


@pytest.mark.parametrize(
    ("value", "of", "right"),
    [(10**400, 0.5, True), (1e300, 1e-300, False), (7, 2, False), (0.3, 0.1, False), (4.5, 1.5, True), (6, 2.0, True)],
)
def test_multiples_of_any_size(value: float, of: float, right: bool) -> None:
    assert Checker({"multipleOf": of}).fits(value) is right


def test_equal_values_are_not_unique_however_they_are_written() -> None:
    held = Checker({"uniqueItems": True})
    assert held.fits([1, True, "1", [1]]) and not held.fits([{"a": 1}, {"a": 1.0}])


def test_a_name_with_quotes_is_named_whole() -> None:
    (problem,) = violations(calls({"type": "object", "required": ["""it's "so" """]}, {}))
    assert problem.message == """turn 2: f: missing argument it's "so" """


def test_a_broken_schema_is_said_once_at_its_tool() -> None:
    (problem,) = violations(calls({"type": "object", "properties": 5, "required": [1]}, {"a": 1}))
    assert problem.message.startswith("tool f: its parameters are no JSON schema: properties: wanted an object")


def test_a_call_that_cannot_be_checked_is_a_finding() -> None:
    (problem,) = violations(calls({**DOUBLING, "additionalProperties": True}, {"a": 1}))
    assert "the arguments can't be held against the schema: the schema takes too long" in problem.message


def test_good_chats_have_no_findings() -> None:
    assert violations(weather_chat()) == []


_leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "ab", "b1", ""])
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3),
    max_leaves=8,
)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3)
    listed = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "object", "array", ["null", "boolean"]]),
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
            "additionalProperties": inner,
            "required": st.lists(st.sampled_from(["a", "b"]), unique=True),
            "items": inner,
            "prefixItems": listed,
            "contains": inner,
            "anyOf": listed,
            "oneOf": listed,
            "allOf": listed,
            "not": inner,
            "if": inner,
            "then": inner,
            "enum": st.lists(_values, max_size=3),
            "const": _values,
            "multipleOf": st.sampled_from([2, 0.5]),
            "pattern": st.sampled_from(["^a", "[0-9]", "b+$"]),
            "uniqueItems": st.booleans(),
            "minLength": st.integers(0, 2),
            "unevaluatedItems": inner,
        },
    )


@settings(max_examples=80)
@given(st.recursive(st.booleans() | _schemas(st.booleans()), _schemas, max_leaves=6), _values)
def test_the_verdict_is_jsonschemas(schema: Any, value: Any) -> None:
    assert Checker(schema).fits(value) is jsonschema.Draft202012Validator(schema).is_valid(value), json.dumps(schema)
