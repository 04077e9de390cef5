"""What a model writes, taken apart while it comes: thinking, text for the user, calls.

One reader serves streamed answers and whole ones, so that both say the same. Text goes out as soon as it can't be the
beginning of thinking or of a call; what may be one is held until that is known. `toolkit.data.call_parsing` reads the
calls, as it does everywhere else; they are told when the answer has ended. Of a call that a limit or a stop word cut,
nothing is told: it is no call, and its markup is no text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.chats import ToolCall
from toolkit.data.call_forms import FORMS
from toolkit.data.call_parsing import parse
from toolkit.inference.serve.grammar import BEGINNINGS

Delta = dict[str, Any]
THINK, THINK_END, CALL, FENCE = "<think>", "</think>", "<tool_call>", "```"
_MARKS = (CALL, *dict.fromkeys(form.opener for form in FORMS.values() if form.opener != CALL))
# Where a call may begin. A bracket alone, as in [a link](...) or in code, begins none.
_OPENER = re.compile("|".join(map(re.escape, _MARKS)) + r"|```|\{\s*[\"']|\[\s*\{")
_TOKENS = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
_PARTS = [re.escape(mark[:size]) for mark in _MARKS for size in range(1, len(mark))]
_NAME = re.compile(r"""[{,]\s*["'](?:tool|tool_name|function|name|method)["']\s*:\s*["']([^"'\\]*)["']""")
_ARGUMENTS = re.compile(r"""[{,]\s*["'](?:arguments|parameters|args)["']\s*:""")
_PART_OF_FENCE = re.compile(r"```\w*\s*`{0,2}")
_PART_OF_OPENER = re.compile("(?:" + "|".join([r"[{\[]\s*", "`{1,2}", *_PARTS]) + r")\Z")


@dataclass(slots=True)
class AnswerReader:
    """Feed it an answer's pieces; what it gives are deltas as OpenAI streams them.

    with_calls: whether tools were on offer; without them text is text. thinking: whether the prompt ends within a
    thought. parallel: whether more than one call may be told. tools: those on offer. calls: those that were told.
    """

    call_format: str
    with_calls: bool
    thinking: bool = False
    parallel: bool = True
    tools: Sequence[dict[str, Any]] = ()
    calls: list[ToolCall] = field(default_factory=list)
    _held: str = ""
    _talking: bool = False  # it is known that no thought comes first
    _called: bool = False  # a call has begun: all that follows is read at the end
    _space: str = ""  # white space that is told only if more follows
    _said: bool = False

    def feed(self, piece: str) -> Iterator[Delta]:
        """What a piece of the answer makes certain."""
        self._held += piece
        while not self._talking:
            if self.thinking:
                yield from self._think()
                if self.thinking:
                    return
            start = self._held.lstrip()
            if start.startswith(THINK):
                self.thinking, self._held = True, start.removeprefix(THINK)
                self._said, self._space = False, ""
            elif THINK.startswith(start):
                return
            else:
                self._talking, self._held, self._said, self._space = True, start, False, ""
        if not self._called:
            yield from self._talk(piece)

    def finish(self, *, cut: bool = False) -> Iterator[Delta]:
        """What was held: calls, or the text that it is where it holds none. cut: whether a limit or a stop word ended
        the answer: half a call and half a mark are then left out."""
        held, self._held = self._held, ""
        if self.thinking:
            if not cut:  # else it is a part of </think>
                yield from self._tell("reasoning_content", held)
            return
        parsed = parse(held, self.call_format, self.tools) if self.with_calls else None
        calls = [call for call in parsed.calls if arguments_text(call) is not None] if parsed else []
        if parsed is None or not (calls or (cut and parsed.has_call and self._may_call(held))):
            yield from self._tell("content", self._without_part(held) if cut else held)
            return
        self._space = self._space or "\n"
        text = self._without_part(parsed.text) if cut else parsed.text
        # what is left of a value or a fence that was cut behind its calls is their markup
        if cut and not self._called and (held[0] in "{[" or _PART_OF_FENCE.fullmatch(parsed.text)):
            text = ""
        yield from self._tell("content", text)
        self.calls = calls if self.parallel else calls[:1]
        for index, call in enumerate(self.calls):
            yield {"tool_calls": [{"index": index, **openai_call(call)}]}

    def _may_call(self, cut: str) -> bool:
        """Whether half a JSON value may become a call: not where it names what is no tool on offer, as data may."""
        names = () if self._called else _NAME.finditer(cut)
        name = next((one for one in names if not _in_arguments(cut, one.start())), None)
        return name is None or name[1] in ("tools/call", *(tool["function"]["name"] for tool in self.tools))

    def _without_part(self, text: str) -> str:
        """A text that was cut, without the part of a mark that it ends in. One sign is such a part only where a
        line begins with it."""
        begins = BEGINNINGS.get(self.call_format, CALL)
        marks = (*_MARKS, begins, f"[{begins}") if self.with_calls else ()
        marks = marks if self._said else (*marks, THINK)
        parts = (mark[:size] for mark in marks for size in range(1, len(mark)))
        part = max((part for part in parts if text.endswith(part)), key=len, default="")
        before = self._space + text.removesuffix(part)
        alone = before.endswith("\n") or not (self._said or before.strip())
        return text.removesuffix(part) if len(part) > 1 or alone else text

    def _think(self) -> Iterator[Delta]:
        thought, end, rest = self._held.partition(THINK_END)
        if end:
            yield from self._tell("reasoning_content", thought)
            self.thinking, self._held, self._said, self._space = False, rest, False, ""
            return
        kept = next((size for size in range(len(THINK_END) - 1, 0, -1) if thought.endswith(THINK_END[:size])), 0)
        self._held = thought[len(thought) - kept :]
        yield from self._tell("reasoning_content", thought[: len(thought) - kept])

    def _talk(self, piece: str) -> Iterator[Delta]:
        while self._held:
            opener = _OPENER.search(self._held) if self.with_calls else None
            if opener is None:
                part = _PART_OF_OPENER.search(self._held) if self.with_calls else None
                stop = part.start() if part else len(self._held)
                yield from self._tell("content", self._held[:stop])
                self._held = self._held[stop:]
                return
            yield from self._tell("content", self._held[: opener.start()])
            self._held = self._held[opener.start() :]
            if opener[0] in _MARKS:
                self._called = True
                return
            end = self._end_of_candidate(opener[0], piece)
            if end is None:
                return
            if parse(self._held[:end], self.call_format).has_call:
                self._called = True
                return
            yield from self._tell("content", self._held[:end])
            self._held = piece = self._held[end:]

    def _end_of_candidate(self, opener: str, piece: str) -> int | None:
        """Where what may be a call ends; None when it goes on."""
        if opener == FENCE:
            end = self._held.find(FENCE, len(FENCE))
            return end + len(FENCE) if end >= 0 else None
        return _closed(self._held) if "}" in piece or "]" in piece else None

    def _tell(self, what: str, text: str) -> Iterator[Delta]:
        """Text without the white space at both ends of the whole."""
        text = self._space + text if self._said else text.lstrip()
        told = text.rstrip()
        self._space = text[len(told) :] if told or self._said else ""
        if told:
            self._said = True
            yield {what: told}


def _in_arguments(text: str, place: int) -> bool:
    """Whether a key behind `place`, the sign before it, is one of a call's arguments, which may come before its
    name."""
    begun = _ARGUMENTS.search(text, 0, place)
    signs = [token[0] for token in _TOKENS.finditer(text[: place + 1], begun.end())] if begun else []
    return sum(sign in ("{", "[") for sign in signs) > sum(sign in ("}", "]") for sign in signs)


def _closed(text: str) -> int | None:
    """Where the bracket that a text begins with is closed; None when it is not."""
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += 1 if token[0] in "{[" else -1 if token[0] in "}]" else 0
        if depth == 0:
            return token.end()
    return None


def arguments_text(call: ToolCall) -> str | None:
    """A call's arguments as JSON text; None when a strict reader could not read them."""
    try:
        text = json.dumps(call.arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return json.dumps(call.arguments, allow_nan=False)
    except ValueError:
        return None
    return text


def openai_call(call: ToolCall) -> dict[str, Any]:
    """A call as OpenAI tells it, with an id of its own."""
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
