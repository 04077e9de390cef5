"""Chat templates come with models, so they are programs from outside: rendered as transformers renders them, bounded.

The environment is the one that `apply_chat_template` makes: jinja2's immutable sandbox with trimmed blocks, `break` and
`continue`, `{% generation %}`, `tojson`, `raise_exception` and `strftime_now`. Its sandbox keeps a template from files
and from Python; nothing in it keeps one from looping for ever or from filling the memory. Here every run of a block is
paid for out of a budget, and so is everything that can make a text or a list longer (`toolkit.data.spending`). What a
template writes within its budget is byte for byte what transformers writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from string import Formatter
from threading import RLock
from types import BuiltinMethodType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from toolkit.data import tool_lines
from toolkit.data.clock import CLOCK
from toolkit.data.spending import (
    BASE,
    PER_PAIR,
    PER_UNIT,
    STEP,
    LimitError,
    budget,
    paid_filter,
    paid_method,
    paid_test,
    pay_field_widths,
    pay_operator,
    weight,
)

LONGEST_SOURCE = 1_000_000
_NODE = 5  # units for each node of a block that runs
_LISTS = ("body", "else_", "elif_")
_OF_DICTS = frozenset(dir(dict))
_HOLDERS = frozenset((Namespace, LoopContext))  # of Jinja: what they hold is the template's own,
_PLAIN = frozenset(
    (str, bool, int, float, list, dict, type(None))
)  # and of these types there is nothing to keep from it
# The budget is one for the process: a thread's own is slow to reach, and two threads render no faster than one.
_one_at_a_time = RLock()


def render_template(source: str, values: Mapping[str, Any]) -> str:
    """The text that a chat template writes for `values`.

    Raises `LimitError` beyond the budget or its time, and whatever else a template can raise.
    """
    if len(source) > LONGEST_SOURCE:
        raise LimitError
    messages = values.get("messages")
    pairs = len(messages) ** 2 if isinstance(messages, list) else 0
    template = _compiled(source)
    with _one_at_a_time:
        # what the chat is given beyond the base is weighed when that is spent, which it hardly ever is
        budget.begin(BASE, lambda: PER_UNIT * weight(dict(values)) + PER_PAIR * pairs)
        return template.render(values)


@lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    environment = _Environment()
    tree = environment.parse(source)
    tool_lines.put_in(tree, environment)
    tree = _Paid().visit(tree).set_environment(environment)
    return jinja2.Template.from_code(environment, environment.compile(tree), environment.make_globals(None))


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant says, which changes nothing in the text."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own name and type

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("said"), [], [], body).set_lineno(line)

    def said(self, caller: Macro) -> str:
        return str(caller())


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_written,
            extensions=[_Generation, loopcontrols],
        )
        self.filters["tojson"] = _tojson
        self.filters = {name: paid_filter(name, run) for name, run in self.filters.items()} | _OURS
        tests: dict[str, Any] = {**self.tests}
        self.tests = {name: paid_test(name, run) for name, run in tests.items()}
        self.globals["raise_exception"] = _raise_exception
        self.globals[CLOCK] = _strftime_now
        self.globals["lipsum"] = _no_lipsum

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(__obj, Macro):
            budget.spend(STEP)
        else:
            args = paid_method(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is str and type(right) is str:  # most of what templates do
            budget.spend(len(left) + len(right))
            return left + right
        pay_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in _OF_DICTS:  # what Jinja finds too, after an exception
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if type(obj) in _HOLDERS and attribute[:1] != "_":
            value = getattr(obj, attribute, self)
            if type(value) in _PLAIN:
                return value
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            budget.weigh(argument)  # as deep as its hash goes
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Any:
        if not isinstance(value, (BuiltinMethodType, MethodType)) or super().wrap_str_format(value) is None:
            return None
        text: Any = value.__self__
        mapped = value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> str:
            if mapped:
                args, kwargs = (), dict(*args)
            budget.spend(len(text))
            if isinstance(text, Markup):
                return Markup(_MarkupFormatter(self, escape=text.escape).vformat(text, args, kwargs))
            return str(_Formatter(self).vformat(text, args, kwargs))

        return formatted


class _PaidFormatter(Formatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        pay_field_widths(format_spec)
        budget.weigh(value)
        return super().format_field(value, format_spec)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        budget.weigh(value)
        return super().convert_field(value, conversion)


class _Formatter(_PaidFormatter, SandboxedFormatter):
    pass


class _MarkupFormatter(_PaidFormatter, SandboxedEscapeFormatter):
    pass


class _Paid(NodeTransformer):
    """Puts into a template what pays for it: each run of a block, `~`, slices and comparisons."""

    def generic_visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        loop = isinstance(node, nodes.For)
        runs = [name for name in ("body", "else_") if getattr(node, name, None) or (loop and name == "body")]
        costs = {name: _cost(getattr(node, name)) for name in runs}
        test = _cost([node.test]) if loop and node.test is not None else 0
        super().generic_visit(node, *args, **kwargs)  # changes it in place
        for name, cost in costs.items():
            getattr(node, name).insert(0, nodes.ExprStmt(_call("spend", nodes.Const(cost))))
        if test:
            node.test = nodes.And(_call("spend", nodes.Const(test)), node.test)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _call("skimmed", node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _call("weighed", node.key)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        for number, operand in enumerate(node.ops):
            left = node.expr if number == 0 else node.ops[number - 1].expr
            constant = isinstance(left, nodes.Const) or isinstance(operand.expr, nodes.Const)
            if operand.op in ("in", "notin"):
                name = isinstance(left, nodes.Const) and isinstance(left.value, str)
                operand.expr = _call("searched" if name else "weighed", operand.expr)
            elif not constant:
                operand.expr = _call("weighed", operand.expr)
        return node


def _call(name: str, first: nodes.Expr, *rest: nodes.Expr) -> nodes.Filter:
    # as a filter, which compiles to a plain call of a function
    return nodes.Filter(first, f"toolkit {name}", list(rest), [], None, None)


def _cost(statements: list[nodes.Node]) -> int:
    """Units of one run through a block, without the blocks inside it."""
    units, todo = STEP, list(statements)
    while todo:
        node = todo.pop()
        units += len(node.data) if isinstance(node, nodes.TemplateData) else _NODE
        todo += _expressions(node)
    return units


def _expressions(node: nodes.Node) -> Iterator[nodes.Node]:
    return node.iter_child_nodes(exclude=_LISTS)


def _spend(units: int) -> bool:
    budget.spend(abs(units))  # a template could ask for it by name too
    return True


def _joined(*parts: Any) -> str:
    for part in parts:
        budget.weigh(part)
    return "".join(map(str, parts))


def _weighed(value: Any) -> Any:
    budget.weigh(value)
    return value


def _searched(value: Any) -> Any:
    if type(value) is dict:  # a text is found by its hash, however much the mapping holds
        budget.spend(STEP)
    else:
        budget.weigh(value)
    return value


def _skimmed(value: Any) -> Any:
    budget.skim(value)
    return value


def _written(value: Any) -> Any:
    budget.weigh(value)
    return value


_OURS: dict[str, Any] = {
    "toolkit spend": _spend,
    "toolkit joined": _joined,
    "toolkit weighed": _weighed,
    "toolkit searched": _searched,
    "toolkit skimmed": _skimmed,
    tool_lines.FILTER: tool_lines.line,
}


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _no_lipsum(*args: Any, **kwargs: Any) -> str:
    raise jinja2.exceptions.TemplateError("lipsum writes at random, which no chat template may")
