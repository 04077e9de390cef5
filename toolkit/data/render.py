"""From a chat to text by its chat template, and from text to tokens with a mask of what is trained.

The text of a row is `tokenizer.apply_chat_template(messages, tools=tools)` and nothing else: what a call format writes
is in the template (`toolkit.data.template`), which goes wherever the model goes.

Trained: every assistant turn that the data does not ask to leave out (`Turn.trained`), from the first character after
its header up to and with its end token. Never trained: system and user turns, tool schemas, tool results, role headers.
The mask is ours: stock templates (Qwen3's too) have no {% generation %} marks, and templates that have them often write
another text than the one that serves.

What "the text" is, is the recipe key `data.thinking`:

template (default)
    One row a chat, token-equal to `tokenizer.apply_chat_template(messages, tools=tools)`. Qwen3's template writes an
    empty <think></think> block before the last assistant turn only. It is trained there, because the prompt of the
    template's default mode ends in the header alone: so for every assistant turn i the prompt
    `apply_chat_template(messages[:i], add_generation_prompt=True)` is an exact token prefix of the row. What it costs:
    4 trained tokens a chat; and since earlier turns are trained without the block and the last one with it, after
    prompts that look alike, the model opens with an empty block sometimes and sometimes not, and both are right.
    Decoding with enable_thinking=False, whose prompt ends in the block, continues what was trained at last turns only.
split
    One row an assistant turn, exactly as decoding with enable_thinking=False prompts and continues it: the prompt is
    `apply_chat_template(messages[:i], add_generation_prompt=True)` with a template that turns thinking off by itself,
    and only the turn itself is trained. Exact at every turn; the price is that earlier turns are tokenised and
    computed again for every later one. The token table reports the factor (`split_factor`).

Reasoning inside a chat's own text (<think>...</think>) is kept or dropped by the template as it would be when serving;
with `split` such a turn is refused, as the empty block contradicts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.chats import Chat, Turn, split_thought
from toolkit.data import legacy
from toolkit.data.call_forms import FORMS
from toolkit.data.call_parsing import parse
from toolkit.data.calls import Messages, to_messages
from toolkit.data.clock import CLOCK, clock_of
from toolkit.data.compose import compose
from toolkit.data.markup import Markup, probe, render
from toolkit.data.rendered import is_written, same_calls
from toolkit.data.rows import Encoded, Row, Tokens, encode, role_spans
from toolkit.data.special_text import kept_as_text, pattern_of, refuse_special_text
from toolkit.data.template import (
    CallFormat,
    ChatTemplate,
    Rendering,
    Thinking,
    ToolPrompt,
    own_template,
    rendering_of,
    templated,
)
from toolkit.data.tokenizers import special_tokens
from toolkit.data.word_tokens import by_words
from toolkit.errors import DataError, Problem


class NoToolsError(DataError):
    """Chats have tools, and the chat template would leave them out: no fault of one row."""


def has_tools(chat: Chat) -> bool:
    return bool(chat.tools) or any(turn.role == "tool" or turn.tool_calls for turn in chat.turns)


class Renderer:
    """Renders chats by a tokenizer's chat template, which says itself what call format it writes.

    `as_before` is the rendering of a run that kept no template: its messages are written by `toolkit.data.legacy`.
    `day` is what a template that asks for the date is told, as 2026-11-30; empty: today, as transformers tells it.
    Raises `DataError` when the template can't do what is asked, and `NoToolsError` for a chat with tools where the call
    format is `native` and the template knows none.
    """

    def __init__(self, tokenizer: Any, as_before: Rendering | None = None, day: str = "") -> None:
        self.tokenizer = tokenizer
        self.day = day
        self.as_before = as_before
        self.rendering = as_before or rendering_of(own_template(tokenizer, "native")[0])
        self.markup: Markup = probe(tokenizer)
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == self.markup.end_id:
            raise DataError(f"the pad token {tokenizer.pad_token!r} must not be {self.markup.end!r}, which ends a turn")
        self._special = pattern_of(special_tokens(tokenizer))
        self._backend = by_words(tokenizer.backend_tokenizer)
        if self.thinking == "template" and not self._prompts_are_prefixes():
            raise DataError(
                "the tokenizer melts the end of the assistant's header with what follows, so prompts would not be what "
                'was trained on; set data.thinking = "split", which tokenises prompts and answers apart'
            )

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        call_format: CallFormat = "native",
        tool_prompt: ToolPrompt = "signature",
        thinking: Thinking = "template",
    ) -> Renderer:
        """For a tokenizer with its model's own template, which a recipe's data settings are put before."""
        return cls(templated(tokenizer, compose(tokenizer, Rendering(call_format, tool_prompt, thinking))))

    @classmethod
    def by(cls, tokenizer: Any, template: ChatTemplate, day: str = "") -> Renderer:
        """By a template that was kept, or as a run that kept none was trained."""
        if template.text is not None:
            return cls(templated(tokenizer, template.text), day=day)
        if template.rendering.call_format in ("json", "jsonrpc"):
            own, _ = own_template(tokenizer, template.rendering.call_format)
            return cls(templated(tokenizer, own), template.rendering)
        if template.rendering == Rendering():
            return cls(tokenizer)  # as it is: with several templates, transformers chose one for each chat
        return cls(templated(tokenizer, compose(tokenizer, template.rendering)))

    @property
    def carried(self) -> str:
        """The template that goes with the model: the one that renders here, or, for a run from before runs kept
        theirs, one that comes as near to it as a template can."""
        if self.as_before is not None:
            return compose(self.tokenizer, self.as_before, as_before=True)
        return own_template(self.tokenizer, "native")[0]

    @property
    def call_format(self) -> CallFormat:
        return self.rendering.call_format

    @property
    def call_form(self) -> str:
        """What reads the calls that are written: the call format, or for `native` the form that the template has."""
        return self.markup.form or self.call_format if self.call_format == "native" else self.call_format

    @property
    def thinking(self) -> Thinking:
        return self.rendering.thinking

    def _prompts_are_prefixes(self) -> bool:
        probe = Chat((Turn("user", "quartz"), Turn("assistant", "amber")))
        ids = Tokens(self._backend, self._render(self._messages(probe), probe), 0).ids
        prompt = Tokens(self._backend, self._prompt(probe, 1), 0).ids
        return ids[: len(prompt)] == prompt

    @property
    def end_token_ids(self) -> list[int]:
        """Tokens that end an assistant's turn: the template's, and the tokenizer's eos where that is another."""
        return list(dict.fromkeys(i for i in (*self.markup.closes, self.tokenizer.eos_token_id) if i is not None))

    def messages(self, chat: Chat, turns: int | None = None) -> Messages:
        """What the chat template is handed for a chat's first `turns` turns; special tokens in its text stay text."""
        return self._messages(kept_as_text(chat, self._special), turns)

    def _messages(self, chat: Chat, turns: int | None = None) -> Messages:
        if self.as_before is not None:
            return legacy.to_messages(chat, self.as_before, tool_role=self.markup.tool_role, turns=turns)
        return to_messages(chat, turns, reasoning=self.markup.reasoning, call_ids=self.markup.call_ids)

    def prompt(self, chat: Chat, turn: int) -> str:
        """The exact text that generation is prompted with for assistant turn `turn` (an index into chat.turns), given
        the chat's own earlier turns. Its ids are those of `toolkit.data.special_text.prompt_ids`.

        Raises `DataError` when that turn is not the assistant's or nothing precedes it.
        """
        return self._prompt(kept_as_text(chat, self._special), turn)

    def _prompt(self, chat: Chat, turn: int) -> str:
        if not 0 <= turn < len(chat.turns) or chat.turns[turn].role != "assistant":
            raise DataError(Problem(chat.where, f"turn {turn} is not an assistant turn"))
        self._refuse_tools(chat)
        before = self._messages(chat, turn)
        if not before.messages:
            raise DataError(Problem(chat.where, "nothing comes before the first assistant turn, so nothing prompts it"))
        return self._render(before, chat, add_generation_prompt=True)

    def rows(self, chat: Chat) -> list[Row]:
        """The rows to train on. Raises `DataError` with the chat's place when it can't be rendered or masked."""
        self._refuse_tools(chat)
        refuse_special_text(chat, self._special)
        if not any(turn.role == "assistant" for turn in chat.turns):
            raise DataError(Problem(chat.where, "no assistant turn, so nothing to train on"))
        if not any(turn.role == "assistant" and turn.trained for turn in chat.turns):
            raise DataError(Problem(chat.where, "no assistant turn is to be trained, so nothing to train on"))
        if self.thinking == "split":
            rows = list(self._split(chat))
        else:
            rows = self._by_turns(chat) if self.markup.by_turns else [self._whole(chat)]
        if not rows:
            raise DataError(Problem(chat.where, "nothing comes before its only answer, so nothing prompts it"))
        return rows

    @property
    def takes_tools(self) -> bool:
        """Whether chats with tools can be rendered."""
        return self.call_format != "native" or self.markup.tools

    def _refuse_tools(self, chat: Chat) -> None:
        if not self.takes_tools and has_tools(chat):
            raise NoToolsError(
                f'data.call_format = "native" needs a chat template that knows tools: {self.markup.why_no_tools}; '
                'set data.call_format = "hermes", which writes tools and calls as Qwen does ("json" and "jsonrpc" are '
                "others)"
            )

    def encode(self, row: Row, max_length: int | None = None) -> Encoded:
        """Tokenise and mask a row. Raises `DataError` when a trained range does not fall on token boundaries,
        or does not end in the end token."""
        return encode(row, self._tokens(row), ends=self.markup.closes, max_length=max_length)

    def offsets(self, row: Row) -> list[tuple[int, int]]:
        """The character range of every token of a row, before any cut."""
        return self._tokens(row).offsets

    def _tokens(self, row: Row) -> Tokens:
        # A split row is tokenised as decoding does it, prompt and answer apart: GPT-2's pre-tokenizer, for one, takes
        # the blank lines that end a prompt as one token, but as two when text follows.
        border = row.spans[0][0] if self.thinking == "split" else 0
        return Tokens(self._backend, row.text, border)

    @property
    def options(self) -> dict[str, Any]:
        """What the template is told beside the messages: a composed one needs nothing, a model's own does."""
        told: dict[str, Any] = {"enable_thinking": False} if self.thinking == "split" else {}
        return {**told, CLOCK: clock_of(self.day)} if self.day else told

    def _render(self, given: Messages, chat: Chat, **options: Any) -> str:
        try:
            return render(self.tokenizer, given.messages, tools=given.tools, **self.options, **options)
        except DataError as error:
            several = self.call_format == "native" and any(len(turn.tool_calls) > 1 for turn in chat.turns)
            hint = '; data.call_format = "hermes" writes several calls of a turn' if several else ""
            raise DataError([Problem(chat.where, problem.message + hint) for problem in error.problems]) from error

    def _whole(self, chat: Chat) -> Row:
        given = self._messages(chat)
        text = self._render(given, chat)
        header, end = self.markup.header, self.markup.end
        spans: list[tuple[int, int]] = []
        position = text.find(header)
        while position >= 0:
            start = position + len(header)
            stop = text.find(end, start)
            if stop < 0:
                raise DataError(Problem(chat.where, f"an assistant turn has no end token {end!r} in the rendered text"))
            spans.append((start, stop + len(end)))
            position = text.find(header, stop)
        return self._row(chat, given, text, spans)

    def _by_turns(self, chat: Chat) -> list[Row]:
        """Where no header opens the answers: each stands behind its prompt. One row where all prompts begin the chat's
        text, else one for each answer, as the template writes what comes before otherwise once more follows."""
        given = self._messages(chat)
        text = self._render(given, chat)
        spans: list[tuple[int, int]] = []
        for index, turn in enumerate(chat.turns):
            if turn.role != "assistant":
                continue
            prompt, end = self._prompt(chat, index) if index else "", self._end_of(chat, index)
            stop = text.find(end, len(prompt))
            if not prompt or stop < 0 or not text.startswith(prompt):
                return list(self._split(chat))
            spans.append((len(prompt), stop + len(end)))
        return [self._row(chat, given, text, spans)]

    def _row(self, chat: Chat, given: Messages, text: str, spans: list[tuple[int, int]]) -> Row:
        answers = [(index, turn) for index, turn in enumerate(chat.turns) if turn.role == "assistant"]
        if len(spans) != len(answers):
            raise DataError(
                Problem(chat.where, f"{len(answers)} assistant turns, but the rendered text has {len(spans)} of them")
            )
        for (index, _), (start, stop) in zip(answers, spans, strict=True):
            self._refuse_other_text(chat, index, text[start:stop])
        trained = [(index, span) for (index, turn), span in zip(answers, spans, strict=True) if turn.trained]
        row_spans = [span for _, span in trained]
        return Row(text, row_spans, role_spans(text, given, spans), chat.where, trained[-1][0])

    def _split(self, chat: Chat) -> Iterator[Row]:
        for index, turn in enumerate(chat.turns):
            if turn.role != "assistant" or index == 0 or not turn.trained:
                continue  # generation is never prompted with nothing
            prompt = self._prompt(chat, index)
            given = self._messages(chat, index + 1)
            text = self._render(given, chat)
            if not text.startswith(prompt) and self.markup.by_turns:
                text = _continued(prompt, text, chat.turns[index - 1].content)
            if not text.startswith(prompt):
                how = "non-thinking" if self.thinking == "split" else "its"
                raise DataError(Problem(chat.where, f"turn {index + 1} does not continue the prompt of {how} decoding"))
            end = self._end_of(chat, index)
            stop = text.find(end, len(prompt))
            if stop < 0:
                raise DataError(Problem(chat.where, f"turn {index + 1} has no end token {end!r}"))
            stop += len(end)
            self._refuse_other_text(chat, index, text[len(prompt) : stop])
            spans = [(len(prompt), stop)]
            yield Row(text[:stop], spans, role_spans(text[:stop], given, spans), chat.where, index)

    def _end_of(self, chat: Chat, index: int) -> str:
        """What closes an assistant's turn."""
        end = self.markup.closing(calls=bool(chat.turns[index].tool_calls))
        follows = chat.turns[index + 1 : index + 2]
        if end != self.markup.end and any(turn.role != "tool" for turn in follows):
            why = "its calls have no results, which the chat template opens as it closes calls"
            raise DataError(Problem(chat.where, f"turn {index + 1}: {why}"))
        return end

    def _refuse_other_text(self, chat: Chat, index: int, written: str) -> None:
        """Refuse a turn that the template did not write as the data has it: its text whole, its calls to be read back
        by a strict parser."""
        turn = chat.turns[index]
        answer = split_thought(turn.content)[1].strip()
        said = split_thought(written)[1]
        place = said.find(answer)
        if place < 0:
            why = "the chat template does not write its text as it is"
            if "</think>" in answer:
                why = "the chat template cuts its text at </think>; take that out or rewrite it"
            raise DataError(Problem(chat.where, f"turn {index + 1}: {why}"))
        rest = said[place + len(answer) :]
        if self.call_form in FORMS:
            read = parse(
                rest.removesuffix(self.markup.closing(calls=bool(turn.tool_calls))), self.call_form, chat.tools
            )
            right = same_calls(read.calls, turn.tool_calls)
        elif self.call_format == "native" and not self.markup.json_calls:
            right = all(call.name in rest for call in turn.tool_calls)  # in a syntax that nothing here reads
        else:
            right = not turn.tool_calls or is_written(turn.tool_calls, rest)
        if not right:
            how = f"as {self.call_form} calls" if self.call_form in FORMS else "by a strict JSON parser"
            why = f"its calls, as the chat template writes them, are not read back as they are {how}"
            raise DataError(Problem(chat.where, f"turn {index + 1}: {why}"))


def _continued(prompt: str, text: str, last: str) -> str:
    """A prompt with the answer that `text` has behind the end of the prompt, from the `last` turn's content on.

    Mistral's templates write the system text, or the tools, into the last user's turn only where nothing follows it.
    """
    tail = prompt[max(0, prompt.rfind(last.strip())) :]
    place = text.rfind(tail)
    return prompt + text[place + len(tail) :] if last.strip() and place >= 0 else text
