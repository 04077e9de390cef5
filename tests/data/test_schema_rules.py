"""Which schemas are refused, and that everything else is judged as draft 2020-12's own schema judges it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.schema_rules import check_schema


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (5, "the schema: wanted a schema, got 5"),
        ({"properties": 5}, "properties: wanted an object of schemas, got 5"),
        ({"properties": {"a": 5}}, "properties.a: wanted a schema, got 5"),
        ({"properties": [{"type": "string"}]}, "properties: wanted an object of schemas, got a list"),
        ({"required": [1]}, "required: wanted a list of texts that differ, got a list"),
        ({"required": "city"}, "required: wanted a list of texts that differ, got 'city'"),
        ({"type": "dict"}, "type: 'dict' is no type of JSON"),
        ({"type": "strng"}, "did you mean string?"),
        ({"type": ["string", {}]}, "type: an object is no type of JSON"),
        ({"anyOf": {}}, "anyOf: wanted a list of schemas, got an object"),
        ({"anyOf": [3]}, "anyOf.0: wanted a schema, got 3"),
        ({"enum": 3}, "enum: wanted a list, got 3"),
        ({"multipleOf": 0}, "multipleOf: wanted a number above 0, got 0"),
        ({"multipleOf": float("inf")}, "holds inf, which is no number of JSON"),
        ({"default": [float("nan")]}, "holds nan, which is no number of JSON"),
        ({"default": 1 << 20_000}, "holds a number of more than 4,000 digits"),
        ({"default": {1: 2}}, "has a key that is no text"),
        ({"default": {1, 2}}, "holds a set, which is not JSON"),
        ({"maxLength": -1}, "maxLength: wanted a whole number, 0 or more, got -1"),
        ({"properties": {"a": {"pattern": "("}}}, "properties.a.pattern: '(' is no regular expression"),
        ({"pattern": "a" * 3000}, "pattern: a pattern of 3,000 characters; at most 2,000 are read"),
        ({"patternProperties": {"(": True}}, "patternProperties: '(' is no regular expression"),
        ({"$ref": "https://example.invalid/s.json"}, "leads out of the schema; nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "leads out of the schema"),
        ({"items": {"$ref": "other.json#/a"}}, "items.$ref: 'other.json#/a' leads out of the schema"),
        ({"$dynamicRef": "urn:x"}, "$dynamicRef: 'urn:x' leads out of the schema"),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, "$ref: '#/$defs/b' leads nowhere in the schema"),
        (
            {"properties": {"\x1b\n": {"type": "\x1b\n"}}},
            "properties.\\u001b\\n.type: '\\u001b\\n' is no type of JSON",
        ),
        ({"properties": {"\x1b": {"pattern": "\x1b("}}}, "properties.\\u001b.pattern: '\\u001b(' is no regular"),
        ({"$ref": "#nameless"}, "$ref: no $anchor 'nameless' in the schema"),
        ({"$ref": "#"}, "refers to itself without end ($ref '#')"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, True]}}}, "without end"),
        ({"$ref": "#/hidden", "hidden": {"pattern": "("}}, "#/hidden.pattern: '(' is no regular expression"),
        ({"$ref": "#/hidden", "hidden": 7}, "#/hidden: wanted a schema, got 7"),
        (nested(300), "nested more than 100 levels deep"),
        ({"enum": list(range(30_000))}, "holds more than 20,000 values"),
    ],
)
def test_what_is_no_usable_schema_is_told_with_its_place(schema: Any, reason: str) -> None:
    assert reason in str(check_schema(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        nested(40),
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.invalid/x", "type": "object"},
        {"type": "object", "properties": {"next": {"$ref": "#"}, "$ref": {"type": "string"}}},
        {"$defs": {"a/b": {"type": "integer"}}, "items": {"$ref": "#/$defs/a~1b"}},
        {"$defs": {"a": {"$anchor": "here"}}, "items": {"$ref": "#here"}},
        {"items": {"$dynamicRef": "#node"}, "$dynamicAnchor": "node"},
        {"pattern": "^(?!.*secret)[a-z]+$"},
        {"enum": [], "default": None, "x-anything": {"$ref": 5}},
    ],
)
def test_schemas_that_can_be_used_pass(schema: Any) -> None:
    assert check_schema(schema) is None


_KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "anyOf",
    "not",
    "minimum",
    "multipleOf",
    "maxLength",
    "uniqueItems",
    "additionalProperties",
    "dependentRequired",
    "patternProperties",
    "description",
    "$defs",
    "minContains",
    "if",
    "prefixItems",
    "dependencies",
    "format",
]
_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([0.5, 2.0, "string", "integer", "a", ""])
    | st.lists(st.sampled_from(["a", "b", "string", 1]), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_KEYWORDS, "a"]), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from(_KEYWORDS), _values, min_size=1, max_size=4))
def test_the_verdict_is_that_of_draft_2020_12(schema: dict[str, Any]) -> None:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        assert check_schema(schema) is not None, json.dumps(schema)
    else:
        assert check_schema(schema) is None, json.dumps(schema)
