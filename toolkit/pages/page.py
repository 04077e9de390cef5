"""The frame of every HTML page: one file that holds all it shows and fetches nothing, in light and dark.

Templates escape what they are given; what is made in this package is marked as safe.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolkit.terminal import clean

if TYPE_CHECKING:
    import jinja2

_KEYS = re.compile(r"`([^`]+)`|\b((?:model|lora|data|train|eval|export)\.[a-z_]+(?: = [\w.+-]*\w)?)")


def render(template: str, maker: str, *, scripted: bool = False, **values: Any) -> str:
    """A page of templates/. `maker`: the command that makes it. `scripted`: lines tell their values to the pointer."""
    script = _file("page.js") if scripted else ""
    # only this very script may run, and nothing may be fetched, whatever a chat has in it
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"; script-src 'sha256-{digest}'" if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'{scripts}; base-uri 'none'"
    style, script = Markup(_file("page.css")), Markup(script)
    page = _environment().get_template(template)
    # what turns the direction of writing would in a browser, as on a terminal, show one text as another
    return clean(page.render(style=style, script=script, policy=policy, maker=maker, **values))


@cache
def _environment() -> jinja2.Environment:
    """To be made once: compiling the templates takes longer than filling them in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("toolkit.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"with_code": with_code, "boxes": boxes}
    environment.globals["table"] = table
    return environment


def _file(name: str) -> str:
    return (resources.files("toolkit.pages") / "templates" / name).read_text(encoding="utf-8")


def with_code(text: str) -> Markup:
    """Plain text as HTML, with recipe keys and what stands in backticks set as code."""
    found, end = [], 0
    for match in _KEYS.finditer(text):
        found += [escape(text[end : match.start()]), f"<code>{escape(match[1] or match[2])}</code>"]
        end = match.end()
    return Markup("".join([*found, escape(text[end:])]))


def table(head: Sequence[str], body: Sequence[Sequence[str]], words: bool = False) -> Markup:
    """A table that scrolls sideways where it does not fit. Cells are text; `words` has the class of that name."""

    def row(cells: Sequence[str], tag: str, scope: str = "") -> str:
        return "<tr>" + "".join(f"<{tag}{scope}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    named = ' class="words"' if words else ""
    head_row = row(head, "th", ' scope="col"')
    return Markup(
        f'<div class="scroll" tabindex="0"><table{named}><thead>{head_row}</thead><tbody>'
        + "".join(row(cells, "td") for cells in body)
        + "</tbody></table></div>"
    )


def details(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A chart's numbers, folded away."""
    return f"<details><summary>Numbers</summary>{table(head, body)}</details>"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a row: its text (empty for the later parts of a character that several tokens share), its id,
    whether it is trained, and whether max_length cuts it off."""

    text: str
    number: int
    trained: bool
    cut: bool = False


def boxes(tokens: Iterable[Token]) -> Markup:
    """Tokens, each in a box of its own that names its id."""
    found = []
    for token in tokens:
        names = "t cut" if token.cut else "t on" if token.trained else "t"
        text = escape(token.text).replace("\n", '<span class="nl">↵</span>\n') or "·"
        found.append(f'<span class="{names}" title="{token.number}">{text}</span>')
    return Markup("".join(found))
