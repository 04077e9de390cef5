"""`toolkit data preview`: chats as the model sees them, what is trained marked, in the terminal and as a web page."""

from __future__ import annotations

import html as escaping
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cache import write_text
from toolkit.chats import Chat
from toolkit.data.parts import part_chats
from toolkit.data.pipeline import Settings
from toolkit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from toolkit.data.render import Renderer, Row
    from toolkit.recipe.load import LoadedRecipe

_LOOKED_AT = 500  # chats among which one of each kind is sought
_TRAINED_STYLE = "bold underline green"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a row: its text (empty for the later parts of a character that several tokens share), its id,
    whether it is trained, and whether max_length cuts it off."""

    text: str
    number: int
    trained: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of the preview."""

    title: str
    tokens: list[Token]


def preview(loaded: LoadedRecipe, n: int, html: Path | None, console: Console) -> None:
    """Print `n` training chats, of different kinds where there are, and write them to the file `html` if given."""
    from toolkit import models

    recipe = loaded.recipe
    settings = Settings.of(recipe, models.resolve(recipe.model, weights=False))
    renderer = settings.renderer()
    chats = chosen(part_chats(recipe, "train"), n)
    rows = [shown(renderer, chat, row, settings.max_length) for chat in chats for row in renderer.rows(chat)]
    if html is not None:
        try:
            write_text(html, page(rows))
        except OSError as error:
            raise InputError(f"--html {html}: can't be written: {error.strerror}") from error
    for row in rows:
        console.print(f"\n{row.title}", style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(terminal_text(row, marks=_marks(console)), soft_wrap=True)
    opening, closing = _marks(console)
    legend = f"\ntrained: {opening}bold, underlined and green{closing}; cut off by max_length: struck out"
    console.print(legend, markup=False, highlight=False)
    if html is not None:
        console.print(f"written to {html}", markup=False, highlight=False, soft_wrap=True)


def chosen(chats: Iterable[Chat], n: int) -> list[Chat]:
    """`n` of the first chats: first one of each kind, then whatever comes, in the data's order."""
    head = list(itertools.islice(chats, max(_LOOKED_AT, n)))
    first_of_kind: dict[str, int] = {}
    for index, chat in enumerate(head):
        first_of_kind.setdefault(chat.kind, index)
    order = [*first_of_kind.values(), *(i for i in range(len(head)) if i not in first_of_kind.values())]
    return [head[index] for index in sorted(order[:n])]


def shown(renderer: Renderer, chat: Chat, row: Row, max_length: int) -> Shown:
    """A row's tokens as the preview shows them."""
    encoded = renderer.encode(row)
    tokens = []
    end = 0
    for index, (start, stop) in enumerate(renderer.offsets(row)):
        text = row.text[max(start, end) : max(stop, end)]
        end = max(stop, end)
        tokens.append(Token(text, int(encoded.input_ids[index]), bool(encoded.trained[index]), index >= max_length))
    kept = [token for token in tokens if not token.cut]
    trained = sum(token.trained for token in kept)
    title = f"{chat.where} ({chat.kind}): {len(kept):,} tokens, {trained:,} trained"
    return Shown(title, tokens)


def terminal_text(row: Shown, marks: tuple[str, str]) -> Text:
    """The row with trained ranges styled and, for terminals and files without colour, between marks."""
    from rich.text import Text

    text = Text()
    for trained, group in itertools.groupby(row.tokens, key=lambda token: token.trained and not token.cut):
        tokens = list(group)
        if trained:
            text.append(marks[0] + "".join(token.text for token in tokens) + marks[1], _TRAINED_STYLE)
        else:
            for token in tokens:
                text.append(token.text, "strike dim" if token.cut else "dim")
    return text


def _marks(console: Console) -> tuple[str, str]:
    return ("⟦", "⟧") if console.encoding.lower().startswith("utf") else ("[[", "]]")


_STYLE = """
body { font: 15px/1.7 ui-monospace, monospace; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
       color: #222; background: #fff; }
h2 { font-size: 1rem; margin-top: 2.5rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
.t { border-right: 1px solid #bbb; color: #666; }
.t.on { background: #d5f0d5; color: #063; font-weight: bold; text-decoration: underline; }
.t.cut { text-decoration: line-through; opacity: .5; }
.nl { opacity: .5; font-weight: normal; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } .t { border-color: #555; color: #aaa; }
  .t.on { background: #143d1c; color: #9fe8ac; }
}
"""


def page(rows: Iterable[Shown]) -> str:
    """A web page that needs nothing else: every token in its own box, its id when the pointer rests on it."""
    body = "\n".join(f"<h2>{escaping.escape(row.title)}</h2>\n<pre>{boxes(row)}</pre>" for row in rows)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>toolkit data preview</title>\n'
        f"<style>{_STYLE}</style></head><body>\n"
        "<p>Each box is a token. <span class='t on'>Bold and underlined</span>: trained. "
        "<span class='t'>Plain</span>: read, not trained. <span class='t cut'>Struck out</span>: cut off.</p>\n"
        f"{body}\n</body></html>\n"
    )


def boxes(row: Shown) -> str:
    """The tokens of a row as HTML, each in a box of its own that names its id."""
    found = []
    for token in row.tokens:
        names = "t cut" if token.cut else "t on" if token.trained else "t"
        text = escaping.escape(token.text).replace("\n", '<span class="nl">↵</span>\n') or "·"
        found.append(f'<span class="{names}" title="{token.number}">{text}</span>')
    return "".join(found)
