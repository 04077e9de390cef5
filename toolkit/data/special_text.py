"""Text of a chat that spells one of the vocabulary's special tokens: as that token it could close its own turn and
open another, so it must stay text.

Training refuses such text. A prompt holds what users and tools say at the time, which can't be rewritten: there a mark
within it keeps it apart until it is tokens (`prompt_ids`), which takes the mark out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from toolkit.chats import Chat, ToolCall, Turn
from toolkit.errors import DataError, Problem

MARK = "\ufdd0"
"""One of the characters that Unicode keeps out of all text. Whoever sends it nonetheless loses it, and no more: text
is only ever tokenised in more parts for it."""


_LONGEST = 64  # characters of a token that is looked for letter by letter
_Letters = dict[str, "_Letters"]


def pattern_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """What finds any of these tokens in a text, the longest first; nothing where there are none."""
    found = sorted(filter(None, set(tokens)), key=lambda token: (-len(token), token))
    letters: _Letters = {}
    for token in found:
        node = letters
        if len(token) <= _LONGEST:
            for letter in token:
                node = node.setdefault(letter, {})
            node[""] = {}
    # Gemma has thousands that begin alike: tried one by one at each "<", they would make a long text take minutes
    parts = [re.escape(token) for token in found if len(token) > _LONGEST] + list(filter(None, [_regex(letters)]))
    return re.compile("|".join(parts) or r"(?!)")


def _regex(letters: _Letters) -> str:
    """What matches the longest word that these letters, each with those that may follow it, spell."""
    branches = [re.escape(letter) + _regex(after) for letter, after in letters.items() if letter]
    whole = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return "" if not branches else f"(?:{whole})?" if "" in letters else whole


def refuse_special_text(chat: Chat, special: re.Pattern[str]) -> None:
    """Raises `DataError` with every place of a chat whose text holds a special token."""
    texts = [(f"turn {number}", turn.content) for number, turn in enumerate(chat.turns, 1)]
    texts += [
        (f"turn {number}: call of {call.name}", f"{call.name} {call.arguments}")
        for number, turn in enumerate(chat.turns, 1)
        for call in turn.tool_calls
    ]
    texts += [(f"tool {tool['function']['name']}", str(tool)) for tool in chat.tools]
    found = [
        Problem(chat.where, f"{place}: the text holds the special token {match.group()}; take it out or rewrite it")
        for place, text in texts
        if (match := special.search(text))
    ]
    if found:
        raise DataError(found)


def kept_as_text(chat: Chat, special: re.Pattern[str]) -> Chat:
    """The chat with a mark in whatever spells a special token: its turns, calls, results, and all names and texts of
    its tools. A chat without such text is the same."""
    turns = tuple(_turn(turn, special) for turn in chat.turns)
    tools = tuple(_marked(tool, special) for tool in chat.tools)
    if turns == tuple(chat.turns) and tools == tuple(chat.tools):
        return chat
    return Chat(turns, tools, chat.kind, chat.source, chat.where, chat.meta)


def _turn(turn: Turn, special: re.Pattern[str]) -> Turn:
    calls = tuple(ToolCall(_text(one.name, special), _marked(one.arguments, special)) for one in turn.tool_calls)
    name = turn.name and _text(turn.name, special)
    return replace(turn, content=_text(turn.content, special), tool_calls=calls, name=name)


def _marked(value: Any, special: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return _text(value, special)
    if isinstance(value, dict):
        return {_text(key, special): _marked(inner, special) for key, inner in value.items()}
    return [_marked(inner, special) for inner in value] if isinstance(value, list) else value


def _text(text: str, special: re.Pattern[str]) -> str:
    """Marked until nothing is found any more: tokens may lie over each other. One of a single character stays, as
    nothing can be put into it; no tokenizer has one, which no text could be written with."""
    while any(len(match.group()) > 1 for match in special.finditer(text)):
        text = special.sub(lambda match: match.group()[:1] + MARK + match.group()[1:], text)
    return text


def parts_of(prompt: str) -> list[str]:
    """The parts of a rendered prompt that are tokenised each for itself, one after the other: one, but for text that
    was kept from becoming a special token."""
    return [part for part in prompt.split(MARK) if part] if MARK in prompt else [prompt]


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A rendered prompt's ids by training's tokenizer; no token is added."""

    def ids() -> Iterator[int]:
        for part in parts_of(prompt):
            yield from tokenizer(part, add_special_tokens=False)["input_ids"]

    return list(ids())
