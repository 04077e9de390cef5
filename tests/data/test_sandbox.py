"""Chat templates are rendered as transformers renders them, and end whatever they do."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from tests.data.toys import QWEN_LIKE, STRICT, save_tokenizer, tokenizer
from tests.tiny import CHATML
from toolkit.data.markup import render
from toolkit.data.render import Renderer
from toolkit.data.sandbox import render_template
from toolkit.data.spending import LimitError
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import DataError

CALL = {
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Ålesund", "days": [1, 2.5, None]}},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <b>now</b>",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo"]}, "days": {"type": "array", "items": {}}},
            "required": ["city"],
        },
    },
}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are\nbrief."},
    {"role": "user", "content": "Weather in Ålesund? 雨"},
    {"role": "assistant", "content": "", "reasoning_content": "Look.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "name": "get_weather", "tool_call_id": "a1", "content": '{"rain": true}'},
    {"role": "tool", "name": "get_weather", "tool_call_id": "a2", "content": "dry"},
    {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nIt rains."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Gladly."},
]
EVERYTHING = """
{%- macro line(n, mark='-') %}{{ mark * n ~ '\\n' }}{% endmacro -%}
{%- set ns = namespace(text='', seen=[]) %}{% set tool = (tools or [{'function': {'a': 1}}])[0] %}
{% for m in messages if m.content %}
  {%- if loop.first %}{{ line(3) }}{% elif loop.index == 3 %}{% continue %}{% endif %}
  {%- set ns.text = ns.text + m.role[:2] ~ loop.length %}{% set ns.seen = ns.seen + [m.role] %}
  {{- loop.cycle('a', 'b') }}{{ m.content | trim | upper | replace('A', 'aa') | center(20) }}
  {%- if m.role == 'assistant' and 'rains' in m.content %}{% break %}{% endif %}
  {%- generation %}{{ m.content.split()[-1].ljust(12, '.') }}{% endgeneration %}
{% else %}none{% endfor %}
{{ ns.text }}{{ ns.seen | unique | join(', ') }}{{ messages[::-1] | length }}{{ '%s=%5.1f' % ('x', 2.5) }}
{%- for k, v in (tool.function | dictsort) %}{{ k }}:{{ v | tojson(indent=2) }}{% endfor %}
{%- for k, v in tool.items() %}{{ k }}{{ v is mapping }}{% endfor %}
{%- macro wrapped() %}[{{ caller(1) }}]{% endmacro %}{% call(x) wrapped() %}{{ x }}{% endcall %}
{%- for t in [[1, [2]], [3]] recursive %}{{ loop(t) if t is iterable else t }}{% endfor %}
{{ '{:>6}|{0!r}'.format('z') if false else '{:>6}|{}'.format('z', 2 ** 10) }}{{ ('<' | e).format(1) }}{{ '{}' | safe }}
{%- set block %}{{ range(3) | list }}{{ messages | map(attribute='role') | select('ne', 'tool') | list }}{% endset %}
{{- block | indent(2, true) | wordwrap(20) }}{{ {'a': 1, 1: 2, (1, 2): 3}[1, 2] }}{{ [3, 1] | sort | sum }}
{{- undefined_name }}
{{- messages | groupby('role') | map('length') | list }}{{ 7 % 3 }}{{ 1.5 * 2 }}{{ 'a' in 'abc' }}
{{- dict(a=1) | items | list }}
"""
OURS = [("ours", QWEN_LIKE), ("strict", STRICT), ("chatml", CHATML), ("everything", EVERYTHING)]


def published() -> list[tuple[str, str]]:
    folder = importlib.resources.files("trl") / "chat_templates"
    return [(file.name, file.read_text()) for file in folder.iterdir() if file.name.endswith(".jinja")]


def outcome(run: Any) -> str:
    try:
        return str(run())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("name", "source"), OURS + published(), ids=lambda value: value if len(value) < 60 else "")
def test_templates_write_what_they_write_in_transformers(name: str, source: str) -> None:
    for messages in (CHAT, CHAT[1:2]):
        for options in ({"tools": [TOOL]}, {"add_generation_prompt": True, "enable_thinking": False}):
            values: dict[str, Any] = {"tools": None, "documents": None, "add_generation_prompt": False, **options}
            ours = outcome(
                lambda values=values, messages=messages: render_template(source, {**values, "messages": messages})
            )
            theirs = outcome(
                lambda options=options, messages=messages: render_jinja_template(
                    [messages], chat_template=source, **options
                )[0][0]
            )
            assert ours == theirs
            assert name != "everything" or "aa" in ours


def test_a_real_tokenizer_s_template_writes_the_same_bytes(qwen3_tokenizer: Path) -> None:
    real = AutoTokenizer.from_pretrained(str(qwen3_tokenizer), local_files_only=True, trust_remote_code=False)
    for cut in range(1, len(CHAT) + 1):
        for options in ({}, {"tools": [TOOL]}, {"add_generation_prompt": True, "enable_thinking": False}):
            wanted = real.apply_chat_template(CHAT[:cut], tokenize=False, **options)
            assert render(real, CHAT[:cut], **options) == wanted


NESTED = "{% set n = namespace(x=()) %}{% for a in range(99) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a filter in a loop": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "text in a loop": "{% for a in range(99999) %}" + "x" * 9000 + "{% endfor %}",
    "loops of data": "{% for m in messages * 9999999 %}.{% endfor %}",
    "doubling": "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling with ~": "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling lists": "{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling blocks": "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "a list in itself": NESTED + "{{ n.x }}",
    "compared": NESTED + "{% set first = n.x %}" + NESTED + "{{ n.x == first }}",
    "as a key": NESTED + "{{ {n.x: 1} }}",
    "as an index": NESTED + "{{ {}[n.x] }}",
    "times": "{{ 'x' * 9999999999 }}",
    "times, turned round": "{{ 9999999999 * 'x' }}",
    "power": "{{ 9 ** 999999999 }}",
    "squares": "{% set n = namespace(x=9) %}{% for a in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent and a star": "{{ '%*d' % (9999999999, 1) }}",
    "format": "{{ '{:9999999999}'.format(1) }}",
    "format of format": "{{ '{:{}}'.format(1, 9999999999) }}",
    "format_map": "{{ '{a:9999999999}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "center": "{{ 'x' | center(9999999999) }}",
    "ljust": "{{ 'x'.ljust(9999999999) }}",
    "zfill": "{{ 'x'.zfill(9999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(9999999999) }}",
    "to_bytes": "{{ (1).to_bytes(9999999999, 'big') }}",
    "replace": "{% set x = 'x' * 99999 %}{{ x.replace('', x) }}",
    "replace filter": "{% set x = 'x' * 99999 %}{{ x | replace('x', x) }}",
    "translate": "{% set x = 'x' * 99999 %}{{ x.translate({120: x}) }}",
    "join": "{{ ('x' * 99999).join(range(99999) | map('string')) }}",
    "join filter": "{{ range(99999) | join('x' * 99999) }}",
    "indent": "{{ ('\n' * 99999) | indent('x' * 99999) }}",
    "wordwrap": "{{ ('x ' * 99999) | wordwrap(1, wrapstring='x' * 99999) }}",
    "batch": "{{ [1] | batch(9999999999, 'x') | list }}",
    "slice": "{{ [1] | slice(9999999999) | list }}",
    "round": "{{ 2.5 | round(999999999, 'ceil') }}",
    "tojson": "{{ range(9999) | list | tojson(indent=999999) }}",
    "tojson separators": "{{ range(9999) | list | tojson(separators=('x' * 99999, ':')) }}",
    "lists summed": "{{ ([[1]] * 99999) | sum(start=[]) }}",
    "urlize": "{{ ('(' * 99999 + 'http://a.b' + ')' * 99999) | urlize }}",
    "lists in a loop": "{% for a in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "a map in a loop": "{% for a in range(99999) %}{{ range(99999) | map('abs') | list | length }}{% endfor %}",
    "searched in a loop": "{% set x = 'x' * 999999 %}{% for a in range(99999) %}{{ 'y' in x }}{% endfor %}",
    "sliced in a loop": "{% set x = 'x' * 999999 %}{% for a in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "methods in a loop": "{% set x = 'x' * 999999 %}{% for a in range(99999) %}{% set y = x.upper() %}{% endfor %}",
    "a macro that forks": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else '' }}{% endmacro %}{{ f(90) }}",
    "a macro that forks by an if": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(90) }}",
    "a loop that forks": NESTED + "{% for a in n.x recursive %}{{ loop(a) }}{% endfor %}",
    "a long source": "x" * 2_000_000,
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_templates_without_end_are_stopped(source: str) -> None:
    with pytest.raises(LimitError):
        render_template(source, {"messages": CHAT})


def test_a_template_that_a_long_chat_buys_much_has_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], []

    def clock() -> float:
        looks.append(now[0])
        now[0] += 7.0
        return now[0]

    monkeypatch.setattr("toolkit.data.spending.thread_time", clock)
    long = [{"role": "user", "content": "x" * 100_000}]  # thirty million units, in seven portions
    with pytest.raises(LimitError):
        render_template(HOSTILE["nested loops"], {"messages": long})
    assert len(looks) == 4  # 7 seconds at the start; 14, 21 and, past the twenty that there are, 28
    assert render_template("{{ messages[0].content | length }}", {"messages": long}) == "100000"


def test_the_file_of_a_template_without_end_is_named(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model", HOSTILE["nested loops"])
    with pytest.raises(DataError, match=r"model/chat_template\.jinja: the chat template loops or writes more"):
        render(load_tokenizer(folder), CHAT)


def test_a_template_that_is_no_jinja_is_named_with_its_line(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model", "{{ 1 }}\n{% if %}")
    told = r"/model/chat_template\.jinja:2: the chat template is no valid Jinja: Expected an expression"
    with pytest.raises(DataError, match=told):
        Renderer.of(load_tokenizer(folder), "json")  # which writes its own lines before it
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    told = r"/model/tokenizer_config\.json: line 2 of the chat template is no valid Jinja: Expected"
    with pytest.raises(DataError, match=told):
        Renderer.of(load_tokenizer(folder))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template calls itself without end"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "the chat template calls itself without end"),
        ("{{ '('  }}{% if %}", "line 1 of the chat template is no valid Jinja: Expected an expression"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "the chat template"),
        ("{{ messages[0].content.__class__.__mro__ }}", "refuses this chat: access to attribute '__class__'"),
        ("{% include '/etc/passwd' %}", "refuses this chat: no loader"),
        ("{{ 1 }}\n{{ 2 }}}\n{{ {}} }}", "line 3 of the chat template is no valid Jinja: unexpected '}'"),
        ("{{ raise_exception('roles alternate') }}", "the chat template refuses this chat: roles alternate"),
        ("{{ 1 // 0 }}", "refuses this chat: integer division or modulo by zero"),
        ("{{ lipsum(n=99999) }}", "refuses this chat: lipsum"),
    ],
)
def test_templates_that_fail_are_one_line(source: str, said: str) -> None:
    broken = tokenizer()
    before, broken.chat_template = broken.chat_template, source
    try:
        with pytest.raises(DataError, match="chat template") as caught:
            render(broken, CHAT)
    finally:
        broken.chat_template = before
    assert said in str(caught.value)


def test_a_long_chat_is_within_the_budget() -> None:
    many = CHAT[:1] + CHAT[1:] * 400
    values = {"messages": many, "tools": [TOOL] * 40, "add_generation_prompt": False}
    assert render_template(QWEN_LIKE, values).count("It rains.") == 400
