"""What a model writes, taken apart while it comes: thinking, text for the user, calls.

One reader serves streamed answers and whole ones, so that both say the same. Text goes out as soon as it can't be the
beginning of thinking or of a call; what may be one is held until that is known. `toolkit.data.call_parsing` reads the
calls, as it does everywhere else; they are told when the answer has ended.
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

Delta = dict[str, Any]
THINK, THINK_END, CALL, FENCE = "<think>", "</think>", "<tool_call>", "```"
_MARKS = (CALL, *dict.fromkeys(form.opener for form in FORMS.values() if form.opener != CALL))
# Where a call may begin. A bracket alone, as in [a link](...) or in code, begins none.
_OPENER = re.compile("|".join(map(re.escape, _MARKS)) + r"|```|\{\s*[\"']|\[\s*\{")
_TOKENS = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
_PARTS = [re.escape(mark[:size]) for mark in _MARKS for size in range(1, len(mark))]
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

    def finish(self) -> Iterator[Delta]:
        """What was held: calls, or the text that it is where it holds none."""
        held, self._held = self._held, ""
        if self.thinking:
            yield from self._tell("reasoning_content", held)
            return
        parsed = parse(held, self.call_format, self.tools) if self.with_calls else None
        calls = [call for call in parsed.calls if arguments_text(call) is not None] if parsed else []
        if parsed is None or not calls:
            yield from self._tell("content", held)
            return
        self._space = self._space or "\n"
        yield from self._tell("content", parsed.text)
        self.calls = calls if self.parallel else calls[:1]
        for index, call in enumerate(self.calls):
            yield {"tool_calls": [{"index": index, **openai_call(call)}]}

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
