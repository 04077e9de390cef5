"""What the pieces of a chat template may cost: the budget, and the price of operators, methods and filters.

A unit is about a character looked at or written. Whatever a template can make large is paid for before it is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import wraps
from time import thread_time
from typing import Any

BASE = 5_000_000  # units of any rendering
PER_UNIT = 300  # units more for each unit of the chat and its tools
PER_PAIR = 50  # and for each pair of messages: templates look back through all messages for each
PORTION = 5_000_000  # units that are handed out at a time: a second at the most
SECONDS = 20.0  # of the thread's own time, for one rendering
STEP = 20
ITEM = 8
MOST_BITS = 13_000  # of a whole number: what Python still writes in decimal

_NUMBER = re.compile(r"\d{6,}|\*")
# Filters and tests that take the same time for a long value as for a short one.
_CHEAP_FILTERS = frozenset(("length", "count", "first", "last", "default", "d", "attr", "random", "safe"))
_COMPARING_TESTS = frozenset(("in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">="))


class LimitError(Exception):
    """A template would take longer, or write more, than any chat template has to."""


class Budget:
    """Units that the rendering under way has left. There is one at a time: `toolkit.data.sandbox` holds a lock.

    They are handed out in portions, and with each the clock is looked at: what a long chat buys a template in units may
    take longer than `SECONDS`.
    """

    __slots__ = ("_beyond", "left", "rest", "until")

    def __init__(self) -> None:
        self.left = self.rest = 0
        self.until = 0.0
        self._beyond: Callable[[], int] | None = None

    def begin(self, units: int, beyond: Callable[[], int] | None = None) -> None:
        """Have so many for what is rendered now, and as many more as `beyond` says, asked when they are spent."""
        self.left, self.rest, self.until, self._beyond = 0, units, thread_time() + SECONDS, beyond
        self.more()

    def more(self) -> None:
        """Hand out the next portion, and as much as is owed. Raises `LimitError` where there is none, or no time."""
        if self._beyond is not None and self.rest < PORTION - self.left:
            beyond, self._beyond = self._beyond, None
            self.rest += beyond()
        portion = min(self.rest, PORTION - self.left)
        self.rest -= portion
        self.left += portion
        if self.left < 0 or thread_time() > self.until:
            raise LimitError

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            self.more()

    def weigh(self, value: Any) -> None:
        """Spend the size of a value, with all that is in it; what is in it twice counts twice, as it would in text."""
        if type(value) is str:  # most are
            self.left -= len(value) + 1
            if self.left < 0:
                self.more()
            return
        left, stack = self.left, [value]
        while stack:
            if left < 0:
                self.left = left
                self.more()
                left = self.left
            one = stack.pop()
            kind = type(one)
            if kind is str:
                left -= len(one) + 1
            elif kind is dict:
                left -= ITEM * len(one) + 1
                stack += one
                stack += one.values()
            elif kind is list or kind is tuple or kind is set:
                left -= ITEM * len(one) + 1
                stack += one
            elif isinstance(one, (dict, frozenset)):
                stack.append({**one} if isinstance(one, dict) else set(one))
            else:
                left -= size(one)
        self.left = left
        if left < 0:
            self.more()

    def skim(self, value: Any) -> None:
        """Spend what copying a value takes, not what is in it."""
        self.spend(size(value) + 1)


budget = Budget()


def weight(value: Any) -> int:
    """The units that `Budget.weigh` takes for a value, where it is of ours: a tree, and finite."""
    before, budget.left = budget.left, 1 << 62
    try:
        budget.weigh(value)
        return (1 << 62) - budget.left
    finally:
        budget.left = before


def size(value: Any) -> int:
    """Characters of a text, or eight an item."""
    if isinstance(value, (str, bytes)):
        return len(value)
    return ITEM * len(value) if isinstance(value, (list, tuple, dict, set, frozenset, range)) else ITEM


def pay_operator(operator: str, left: Any, right: Any) -> None:
    """Before `left operator right` is worked out."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*" and left.bit_length() + right.bit_length() > MOST_BITS:
            raise LimitError
        if operator == "**" and left.bit_length() * abs(right) > MOST_BITS:
            raise LimitError
        return
    if operator == "*":
        times, many = (left, right) if isinstance(left, int) else (right, left)
        budget.spend(size(many) * max(0, times) if isinstance(times, int) else STEP)
    elif operator == "%" and isinstance(left, str):
        pay_percent(left, right)
    else:
        budget.spend(size(left) + size(right))


def pay_percent(text: str, values: Any) -> None:
    """Before `text % values`."""
    if _NUMBER.search(text):
        raise LimitError
    pay_field_widths(text)
    budget.spend(len(text))
    for _ in range(text.count("%")):
        budget.weigh(values)


def pay_field_widths(spec: str) -> None:
    """Before a value is formatted: what the widths in a format may fill up with."""
    if _NUMBER.search(spec):
        raise LimitError
    budget.spend(sum(map(int, re.findall(r"\d+", spec))))


def paid_method(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Before a function, or a method of a value, is called; its arguments, what `join` is handed made a list."""
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    budget.spend(STEP)
    budget.skim(owner)
    numbers = sum(abs(value) for value in (*args, *kwargs.values()) if isinstance(value, int))
    if isinstance(owner, (str, bytes)):
        if name == "join" and args:
            pieces = _listed(args[0])
            budget.weigh(pieces)
            budget.spend(len(owner) * len(pieces))
            return (pieces, *args[1:])
        if name == "replace" and len(args) > 1:
            _pay_replace(owner, args[0], args[1])
        elif name in ("split", "rsplit", "splitlines"):
            budget.spend(ITEM * (_occurrences(owner, args[0]) if args else len(owner)))
        elif name == "expandtabs":
            budget.spend((numbers or 8) * _occurrences(owner, "\t" if isinstance(owner, str) else b"\t"))
        elif name == "translate":
            longest = [max(map(size, table.values()), default=1) for table in args if isinstance(table, dict)]
            budget.spend(len(owner) * max(longest, default=1))
        elif name in ("center", "ljust", "rjust", "zfill"):
            budget.spend(numbers)
    elif name == "to_bytes":
        budget.spend(numbers)
    for value in (*args, *kwargs.values()):
        budget.weigh(value)
    return args


def paid_filter(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja that is paid for, by what goes in and, where that is made bit by bit, by what comes out."""
    price = _PRICES.get(name)
    first = 1 if hasattr(run, "jinja_pass_arg") else 0
    cheap = name in _CHEAP_FILTERS

    @wraps(run)  # jinja2 marks with attributes what a filter is handed first
    def paid(*args: Any, **kwargs: Any) -> Any:
        given = args[first:]
        if cheap:
            budget.spend(STEP)
        else:
            for value in (*given, *kwargs.values()) if kwargs else given:
                budget.weigh(value)
            if price is not None:
                price(*given, **kwargs)
        found = run(*args, **kwargs)
        return found if type(found) is str else _counted(found) if hasattr(found, "__next__") else found

    return paid


def paid_test(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A test of Jinja that is paid for."""

    comparing = name in _COMPARING_TESTS

    @wraps(run)
    def paid(*args: Any, **kwargs: Any) -> Any:
        budget.spend(STEP)
        if comparing:
            for value in args:
                budget.weigh(value)
        return run(*args, **kwargs)

    return paid


def _counted(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        budget.spend(STEP)
        yield item


def _listed(value: Any) -> list[Any]:
    found = []
    for item in value:
        budget.spend(ITEM)
        found.append(item)
    return found


def _pay_replace(text: Any, old: Any, new: Any) -> None:
    budget.spend(len(text) + _occurrences(text, old) * size(new))


def _occurrences(text: Any, part: Any) -> int:
    return int(text.count(part)) if isinstance(part, type(text)) else len(text)


def _whole(*values: Any) -> int:
    return sum(abs(value) for value in values if isinstance(value, int))


def _price_of_numbers(*args: Any, **kwargs: Any) -> None:
    budget.spend(ITEM * _whole(*args[1:], *kwargs.values()))


def _price_of_indent(value: Any, width: Any = 4, *rest: Any, **options: Any) -> None:
    budget.spend((str(value).count("\n") + 1) * (len(width) if isinstance(width, str) else _whole(width)))


def _price_of_wordwrap(value: Any, width: Any = 79, long: Any = True, wrapstring: Any = None, *rest: Any) -> None:
    lines = size(value) // max(1, _whole(width)) + str(value).count("\n") + 1
    budget.spend(size(value) ** 2 // 1000 + lines * size(wrapstring or "\n"))


def _price_of_wordwrap_options(value: Any, *args: Any, **options: Any) -> None:
    names = ("width", "break_long_words", "wrapstring")
    given = {**dict(zip(names, args, strict=False)), **options}
    _price_of_wordwrap(value, given.get("width", 79), True, given.get("wrapstring"))


def _price_of_replace(value: Any, old: Any = "", new: Any = "", *rest: Any, **options: Any) -> None:
    _pay_replace(str(value), str(old), str(new))


def _price_of_join(value: Any, d: Any = "", *rest: Any, **options: Any) -> None:
    # what an iterator yields is paid for as it comes; each may bring the delimiter
    budget.spend(len(str(d)) * (len(value) if hasattr(value, "__len__") else 1000))


def _price_of_tojson(value: Any, *args: Any, indent: Any = None, separators: Any = None, **options: Any) -> None:
    indent = args[1] if len(args) > 1 else indent
    separators = args[2] if len(args) > 2 else separators
    extra = (len(indent) if isinstance(indent, str) else _whole(indent)) + (weight(separators) if separators else 0)
    if extra > 1000:
        raise LimitError
    budget.spend(extra * (weight(value) // ITEM))


def _price_of_sum(value: Any, attribute: Any = None, start: Any = 0, *rest: Any, **options: Any) -> None:
    if not isinstance(start, (int, float)):  # lists: each addition copies what there is so far
        budget.spend(weight(value) * (len(value) if hasattr(value, "__len__") else 1000))


def _price_of_format(value: Any, *args: Any, **kwargs: Any) -> None:
    pay_percent(str(value), kwargs or args)


def _price_of_listing(value: Any, *args: Any, **options: Any) -> None:
    budget.spend(ITEM * len(value) if isinstance(value, (str, bytes)) else 0)


def _price_of_squares(value: Any, *args: Any, **options: Any) -> None:
    budget.spend(weight(value) ** 2 // 1000)


_PRICES: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("center", "batch", "slice", "round", "truncate"), _price_of_numbers),
    "indent": _price_of_indent,
    "wordwrap": _price_of_wordwrap_options,
    "replace": _price_of_replace,
    "join": _price_of_join,
    "tojson": _price_of_tojson,
    "sum": _price_of_sum,
    "format": _price_of_format,
    **dict.fromkeys(("list", "sort", "dictsort", "unique"), _price_of_listing),
    **dict.fromkeys(("pprint", "urlize"), _price_of_squares),
}
