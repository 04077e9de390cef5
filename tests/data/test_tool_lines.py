"""Tools written by Python are, byte for byte, what the template's macros write."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from toolkit.data import tool_lines
from toolkit.data.sandbox import render_template
from toolkit.data.spending import BASE, budget
from toolkit.world import chats

SIGNATURE = resources.files("toolkit.data").joinpath("templates", "signature.jinja").read_text(encoding="utf-8")
TEMPLATE = SIGNATURE + "{{ toolkit_tool(tools[0]) }}"

WORDS = [
    "city",
    "City",
    "the",
    "name",
    "a",
    "of",
    "Zürich",
    "id,",
    "x.",
    ";",
    "",
    "\t",
    "\n",
    "1st",
    "unit",
    "É",
    "zip_code",
]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=6)
keys = st.sampled_from(["city", "zip_code", "id", "mailTo", "Überzug", ""])
values = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-5, 5) | texts | st.lists(texts, max_size=2)
plain = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "array", "object", "number"])},
    optional={
        "description": texts,
        "default": values,
        "enum": st.lists(values, max_size=3),
        "const": values,
        "minimum": st.integers(-3, 3),
        "maximum": st.floats(-1, 1),
        "format": texts,
        "pattern": texts,
    },
)
odd = values | st.fixed_dictionaries(
    {},
    optional={
        "type": values,
        "description": values,
        "enum": values,
        "anyOf": st.lists(plain, max_size=2),
        "oneOf": st.lists(plain, max_size=2),
        "$ref": st.sampled_from(["#/properties/city", "#/nowhere", "#"]),
        "format": values,
    },
)


def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    with_items = st.fixed_dictionaries({"type": st.sampled_from(["array", "object"]), "items": inner})
    inside = {"properties": st.dictionaries(keys, inner, max_size=3)}
    return with_items | st.fixed_dictionaries(
        inside, optional={"type": st.just("object"), "required": st.lists(keys, max_size=2), "description": texts}
    )


def tools(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    parameters = holding(st.recursive(schemas, holding, max_leaves=6))
    function = st.fixed_dictionaries({"name": keys, "description": texts, "parameters": parameters})
    return function.map(lambda made: {"type": "function", "function": made})


def line(tool: dict[str, Any]) -> str:
    budget.begin(BASE)
    return tool_lines.line(tool)


def as_transformers(tool: dict[str, Any], template: str = TEMPLATE) -> str:
    return str(render_jinja_template([[]], tools=[tool], chat_template=template)[0][0])


def outcome(run: Any) -> str:
    try:
        return str(run())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@given(tools(plain))
def test_plain_schemas(tool: dict[str, Any]) -> None:
    assert line(tool) in ("", as_transformers(tool))


@given(tools(plain | odd))
def test_schemas_of_any_shape(tool: dict[str, Any]) -> None:
    wanted = outcome(lambda: as_transformers(tool))
    assert outcome(lambda: render_template(TEMPLATE, {"messages": [], "tools": [tool]})) == wanted
    assert line(tool) in ("", wanted)


@pytest.mark.parametrize("name", ["name", "description", "parameters"])
@given(tools(plain), values)
def test_functions_of_any_shape(name: str, tool: dict[str, Any], value: Any) -> None:
    function = tool["function"]
    for other in ({**function, name: value}, {key: function[key] for key in function if key != name}):
        for given_ in ({"type": "function", "function": other}, other):
            wanted = outcome(lambda given_=given_: as_transformers(given_))
            assert line(given_) in ("", wanted)
            rendered = outcome(lambda given_=given_: render_template(TEMPLATE, {"messages": [], "tools": [given_]}))
            assert rendered == wanted


def test_no_builtin_tool_is_left_to_the_template() -> None:
    seen = {str(tool): tool for chat in chats(150, decisions=0.2, purposes=0.1) for tool in chat.tools}
    assert len(seen) > 300
    for tool in seen.values():
        assert line(tool) == as_transformers(tool)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("' - ' ~", "' -- ' ~"),  # another macro
        ("'user'] %}", "'user', 'city'] %}"),  # other words
        ("{{ toolkit_tool(", "{% macro toolkit_line(text) %}no{% endmacro %}{{ toolkit_tool("),  # defined twice
        ("{{ toolkit_tool(", "{% set toolkit_small = [] %}{{ toolkit_tool("),
        ("{{ toolkit_tool(", "{% macro yes(text, known) %}1{% endmacro %}{% set toolkit_adds = yes %}{{ toolkit_tool("),
    ],
)
def test_a_template_of_its_own_is_left_alone(before: str, after: str) -> None:
    properties = {"to": {"type": "string", "description": "the city"}, "cc": {"type": "string", "description": "the"}}
    function = {"name": "mail", "description": "Mails.", "parameters": {"properties": properties}}
    tool: dict[str, Any] = {"function": function}
    template = TEMPLATE.replace(before, after)
    assert template != TEMPLATE
    rendered = render_template(template, {"messages": [], "tools": [tool]})
    assert rendered == as_transformers(tool, template)
    assert rendered != line(tool)
