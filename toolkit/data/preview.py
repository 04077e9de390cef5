"""`toolkit data preview`: chats as the model sees them, what is trained marked, in the terminal and as a web page."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import models
from toolkit.chats import Chat
from toolkit.data.notes import Reading
from toolkit.data.parts import part_chats
from toolkit.data.pipeline import Settings
from toolkit.data.render import NoToolsError
from toolkit.data.violations import broken_rows, violations
from toolkit.errors import DataError, InputError, Problem
from toolkit.files import write_text
from toolkit.pages.page import Token, render
from toolkit.terminal import clean, warn
from toolkit.words import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from toolkit.data.render import Renderer
    from toolkit.data.rows import Row
    from toolkit.recipe.load import LoadedRecipe

_LOOKED_AT = 500  # chats among which one of each kind is sought
_TRAINED_STYLE = "bold underline green"


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of the preview."""

    title: str
    tokens: list[Token]


def preview(loaded: LoadedRecipe, n: int, html: Path | None, console: Console) -> None:
    """Print `n` training chats, of different kinds where there are, and write them to the file `html` if given."""
    recipe = loaded.recipe
    settings = Settings.of(recipe, models.resolve(recipe.model, weights=False))
    renderer = settings.renderer()
    reading = Reading(recipe.data.max_bad)
    most = min(max(_LOOKED_AT, n), sys.maxsize)
    head = list(itertools.islice(part_chats(recipe, "train", reading), most))
    whole = len(head) < most
    rows, unrendered = _rendered(renderer, head, n, settings.max_length)
    for problem in unrendered:
        reading.refuse(problem)
    if whole or (unrendered and not recipe.data.max_bad):  # a share of rows is known only when all are read
        reading.stop()
    if html is not None:
        try:
            write_text(html, page(rows))
        except OSError as error:
            raise InputError(f"--html {html}: can't be written: {error.strerror}") from error
    faults = [found[0] for chat in head if (found := violations(chat))]
    if faults:
        warn(broken_rows(len(faults), len(head), str(faults[0])))
    if unrendered:
        count = len(unrendered)
        told = f"{counted(count, 'row')} can't be rendered and {'is' if count == 1 else 'are'} left out"
        warn(f"{told}: {unrendered[0]}")
    for row in rows:
        console.print(f"\n{row.title}", style="bold", markup=False, highlight=False, soft_wrap=True)
        console.print(terminal_text(row, marks=_marks(console)), soft_wrap=True)
    opening, closing = _marks(console)
    legend = f"\ntrained: {opening}bold, underlined and green{closing}; cut off by max_length: struck out"
    console.print(legend, markup=False, highlight=False)
    if html is not None:
        console.print(f"written to {html}", markup=False, highlight=False, soft_wrap=True)


def _rendered(renderer: Renderer, head: Sequence[Chat], n: int, max_length: int) -> tuple[list[Shown], list[Problem]]:
    """The rows of `n` of the chats that can be rendered, and what is wrong with those that were tried and can't be."""
    tried: dict[int, list[Shown] | Problem] = {}
    left = list(head)
    while True:
        chats = chosen(left, n)
        for chat in chats:
            if id(chat) not in tried:
                tried[id(chat)] = _tried(renderer, chat, max_length)
        if not any(isinstance(tried[id(chat)], Problem) for chat in chats):
            break
        left = [chat for chat in left if not isinstance(tried.get(id(chat)), Problem)]
    rows = [row for chat in chats if not isinstance(made := tried[id(chat)], Problem) for row in made]
    return rows, [made for made in tried.values() if isinstance(made, Problem)]


def _tried(renderer: Renderer, chat: Chat, max_length: int) -> list[Shown] | Problem:
    """A chat's rows, or why it has none."""
    try:
        return [shown(renderer, chat, row, max_length) for row in renderer.rows(chat)]
    except NoToolsError:
        raise
    except DataError as error:
        return error.problems[0]


def chosen(head: Sequence[Chat], n: int) -> list[Chat]:
    """`n` of the chats: first one of each kind, then whatever comes, in the data's order."""
    first_of_kind: dict[str, int] = {}
    for index, chat in enumerate(head):
        first_of_kind.setdefault(chat.kind, index)
    order = [*first_of_kind.values(), *(i for i in range(len(head)) if i not in first_of_kind.values())]
    return [head[index] for index in sorted(order[:n])]


def shown(renderer: Renderer, chat: Chat, row: Row, max_length: int) -> Shown:
    """A row's tokens as the preview shows them, with what a terminal or browser would swallow or obey as escapes."""
    encoded = renderer.encode(row)
    tokens = []
    end = 0
    for index, (start, stop) in enumerate(renderer.offsets(row)):
        text = row.text[max(start, end) : max(stop, end)]
        end = max(stop, end)
        number, trained = int(encoded.input_ids[index]), bool(encoded.trained[index])
        tokens.append(Token(clean(text), number, trained, index >= max_length))
    kept = [token for token in tokens if not token.cut]
    count = sum(token.trained for token in kept)
    title = f"{chat.where} ({chat.kind}): {counted(len(kept), 'token')}, {count:,} trained"
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


def page(rows: Iterable[Shown]) -> str:
    """A web page that needs nothing else: every token in its own box, its id when the pointer rests on it."""
    return render("preview.html", "toolkit data preview", title="toolkit data preview", rows=list(rows))
